package logdrivers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"lrd/internal/logopts"
)

// jsonFile is the target of the driver json-file.
type jsonFile struct {
	path  string
	files logopts.Files
	enc   *jsonEncoder
	log   *slog.Logger

	f       *os.File
	inode   uint64 // of the file
	written int64  // its size
	buf     []byte // the batch
	scratch []byte // one entry, to compare with what is there

	// check reads what the file holds behind the place that the state tells of, up to checkEnd; nil when that is done with.
	check    *io.SectionReader
	checked  int64 // size of the file up to which it is what it should be
	checkEnd int64
}

// jsonFileState is what a jsonFile wants to find again.
type jsonFileState struct {
	Inode uint64 `json:"inode"` // of the file
	Size  int64  `json:"size"`  // up to here it has what the state tells of
}

func newJSONFile(path string, o Options) (*jsonFile, error) {
	files, err := logopts.ParseFiles(o.Info.Config)
	if err != nil {
		return nil, err
	}
	attrs, err := o.Info.AllAttributes()
	if err != nil {
		return nil, err
	}
	var text []byte
	if len(attrs) > 0 {
		if text, err = json.Marshal(attrs); err != nil {
			return nil, err
		}
	}
	return &jsonFile{path: path, files: files, enc: newJSONEncoder(text), log: o.Log}, nil
}

// open opens the file that is written to, so that it is there from the container's start. Its mode is Docker's.
func (j *jsonFile) open() error {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	j.f = f
	return j.measure()
}

// measure finds out which file it is, and how large: somebody may have cut it.
func (j *jsonFile) measure() error {
	fi, err := j.f.Stat()
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell which file %s is", j.path)
	}
	j.inode, j.written = st.Ino, fi.Size()
	return nil
}

func (j *jsonFile) resume(_ context.Context, _ int64, saved json.RawMessage, _ bool) error {
	if err := j.finishTurn(); err != nil {
		return err
	}
	var st jsonFileState
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &st); err != nil {
			return fmt.Errorf("cannot read what was saved of the file: %w", err)
		}
	}
	switch {
	case st.Inode == j.inode && st.Size <= j.written:
		j.checked = st.Size
	case st.Inode == 0, st.Inode != j.inode && j.full(st.Size):
		j.checked = 0 // the file was begun after the state was saved
	default:
		// Somebody else has moved or cut it. What it has beyond the state, if anything, cannot be known.
		j.checked = j.written
	}
	j.checkEnd = j.written
	if j.checked < j.checkEnd {
		j.check = io.NewSectionReader(j.f, j.checked, j.checkEnd-j.checked)
	}
	return nil
}

// full says whether a file of that size is to be turned over.
func (j *jsonFile) full(size int64) bool { return j.files.MaxSize > 0 && size >= j.files.MaxSize }

// due says that the next entry goes into another file.
func (j *jsonFile) due() bool { return j.check == nil && j.full(j.written+int64(len(j.buf))) }

func (j *jsonFile) size() int { return len(j.buf) }

func (j *jsonFile) add(_ context.Context, e *entry) error {
	if j.check != nil {
		return j.compare(e)
	}
	if len(j.buf) == 0 && j.full(j.written) {
		if err := j.turn(); err != nil {
			return fmt.Errorf("cannot turn %s over: %w", j.path, err)
		}
	}
	j.buf = j.enc.append(j.buf, e)
	return nil
}

// compare looks whether the file has the entry already: a daemon that was killed has written it.
func (j *jsonFile) compare(e *entry) error {
	j.scratch = j.enc.append(j.scratch[:0], e)
	there := make([]byte, min(int64(len(j.scratch)), j.checkEnd-j.checked))
	if _, err := io.ReadFull(j.check, there); err != nil {
		return fmt.Errorf("cannot read what was written before: %w", err)
	}
	if string(there) != string(j.scratch[:len(there)]) {
		j.log.Warn("The log file has something that was not written by lrd; going on behind it", "path", j.path, "offset", j.checked)
		j.check = nil
		j.buf = append(j.buf, j.scratch...)
		return nil
	}
	j.checked += int64(len(there))
	if j.checked == j.checkEnd {
		j.check = nil
		j.buf = append(j.buf, j.scratch[len(there):]...) // the rest of one that was torn
	}
	return nil
}

func (j *jsonFile) flush(context.Context) error {
	for len(j.buf) > 0 {
		n, err := j.f.Write(j.buf)
		j.buf = j.buf[:copy(j.buf, j.buf[n:])]
		if err != nil {
			return err
		}
	}
	return j.measure()
}

func (j *jsonFile) save() any {
	st := jsonFileState{Inode: j.inode, Size: j.written}
	if j.check != nil {
		st.Size = j.checked // what is behind it has still to be found out
	}
	return st
}

func (j *jsonFile) rest() { j.buf, j.scratch = nil, nil }

func (j *jsonFile) close() error {
	err := j.f.Close()
	if errors.Is(err, fs.ErrClosed) {
		return nil // turning it over has failed
	}
	return err
}
