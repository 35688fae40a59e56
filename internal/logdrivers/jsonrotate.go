package logdrivers

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// name is the file that was turned over n files ago.
func (j *jsonFile) name(n int, compressed bool) string {
	name := j.path
	if n > 0 {
		name = fmt.Sprintf("%s.%d", j.path, n)
	}
	if compressed {
		name += ".gz"
	}
	return name
}

// turn begins a new file. The state has been saved with the size of the full
// one, which is how the next daemon knows, should this one be killed here,
// that the new file's beginning is what comes after the state. For that the new file must
// be another inode than the full one, which is therefore there until the new one is.
func (j *jsonFile) turn() error {
	if j.files.MaxFiles < 2 {
		return j.replace()
	}
	if err := j.finishTurn(); err != nil { // of the one before
		return err
	}
	if err := j.moveUp(); err != nil {
		return err
	}
	old := j.f
	if err := j.open(); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		return err
	}
	return j.finishTurn()
}

// replace puts an empty file in the place of the full one.
func (j *jsonFile) replace() error {
	next := j.path + ".tmp"
	f, err := os.OpenFile(next, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if err := os.Rename(next, j.path); err != nil {
		return errors.Join(err, f.Close())
	}
	old := j.f
	j.f = f
	return errors.Join(j.measure(), old.Close())
}

// moveUp gives each file the next number, and the full one the first; the last one goes. It
// begins at the first gap, which is where a daemon that was killed has stopped.
func (j *jsonFile) moveUp() error {
	last := j.files.MaxFiles - 1
	gap := 1
	for ; gap < last; gap++ {
		if _, err := os.Lstat(j.name(gap, j.files.Compress)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
	}
	for n := gap; n > 1; n-- {
		if err := os.Rename(j.name(n-1, j.files.Compress), j.name(n, j.files.Compress)); err != nil {
			return err
		}
	}
	err := os.Rename(j.path, j.name(1, false))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has taken it away
	}
	return err
}

// finishTurn compresses the file that was turned over last, if that is to be
// done and not done yet.
func (j *jsonFile) finishTurn() error {
	if !j.files.Compress {
		return nil
	}
	full := j.name(1, false)
	if _, err := os.Lstat(full); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := compressFile(full, j.name(1, true), j.enc.at); err != nil {
		return fmt.Errorf("cannot compress %s: %w", full, err)
	}
	return os.Remove(full)
}

// compressFile makes a gzip file of another, with the time of the last entry in its header, where
// Docker looks for it.
func compressFile(from, to string, last time.Time) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	tmp := to + ".tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	if !last.IsZero() {
		z.Extra, err = json.Marshal(struct {
			LastTime time.Time `json:"lastTime"`
		}{last.UTC()})
	}
	if err == nil {
		_, err = io.Copy(z, in)
	}
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, to)
}
