package logdrivers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

// journalSocket is where the journal takes entries (systemd, "Native Journal Protocol").
const journalSocket = "/run/systemd/journal/socket"

// Fields of an entry besides MESSAGE and PRIORITY. The names are Docker's. The
// ordinal counts within an epoch, which is one container's life.
const (
	fieldFullID    = "CONTAINER_ID_FULL"
	fieldEpoch     = "CONTAINER_LOG_EPOCH"
	fieldOrdinal   = "CONTAINER_LOG_ORDINAL"
	fieldTimestamp = "SYSLOG_TIMESTAMP"
	fieldPartial   = "CONTAINER_PARTIAL_MESSAGE"
	fieldPieceOf   = "CONTAINER_PARTIAL_ID"
	fieldPiece     = "CONTAINER_PARTIAL_ORDINAL"
	fieldLastPiece = "CONTAINER_PARTIAL_LAST"
)

// Priorities (syslog(3)) of standard output and standard error, as Docker has them.
const (
	priorityInfo = 6
	priorityErr  = 3
)

// journalAccess is how the journal is reached.
type journalAccess struct {
	socket string
	// lookup holds a token for each question to the journal that is under way: after a crash all
	// containers may ask at once, and each question is a process.
	lookup chan struct{}
	// sync returns when the journal has taken in what was sent before, and last finds it.
	sync func(ctx context.Context) error
	// last asks for the ordinal of a container's last entry of an epoch; 0: there is none. whole: nothing was left out in looking.
	last func(ctx context.Context, id, epoch string) (ordinal int64, whole bool, err error)
}

func newJournalAccess() journalAccess {
	return journalAccess{socket: journalSocket, lookup: make(chan struct{}, 4), sync: syncJournal, last: lastInJournal}
}

// journal is the target of the driver journald.
type journal struct {
	access *journalAccess
	id     string
	epoch  string
	fixed  []byte // the fields that are the same in all entries
	have   int64  // entries up to this ordinal are in the journal already

	conn  *net.UnixConn
	buf   []byte // the batch: one datagram after the other
	ends  []int  // where they end in buf
	sent  int    // how many of them were sent
	start int    // where the next one begins
}

func newJournal(access *journalAccess, o Options) (*journal, error) {
	tag, err := o.Info.Tag(logopts.DefaultTag)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{
		"CONTAINER_ID":      o.Info.ID(),
		fieldFullID:         o.Info.FullID(),
		"CONTAINER_NAME":    o.Info.Name(),
		"CONTAINER_TAG":     tag,
		"IMAGE_NAME":        o.Info.ImageName(),
		"SYSLOG_IDENTIFIER": tag,
	}
	attrs, err := o.Info.Attributes(fieldName)
	if err != nil {
		return nil, err
	}
	j := &journal{access: access, id: o.Info.FullID(), epoch: epochOf(o.Info.FullID())}
	fields[fieldEpoch] = j.epoch
	for name, value := range attrs {
		if name != "" {
			fields[name] = value
		}
	}
	for name, value := range fields {
		j.fixed = appendField(j.fixed, name, []byte(value))
	}
	return j, nil
}

// fieldName makes a name fit for the journal: upper case letters, digits and underscores, none of these first.
func fieldName(s string) string {
	return strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return unicode.ToUpper(r)
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, s), "_")
}

// appendField appends a field in the form of the native protocol.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
		b = append(b, value...)
		return append(b, '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, value...)
	return append(b, '\n')
}

// open has nothing to get ready: the journal is reached when there is something to send.
func (j *journal) open() error { return nil }

func (j *journal) resume(ctx context.Context, ordinal int64, _ json.RawMessage, sending bool) error {
	j.have = ordinal
	if !sending {
		return nil
	}
	select {
	case j.access.lookup <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-j.access.lookup }()
	last, err := j.last(ctx)
	if err != nil {
		return err
	}
	j.have = max(j.have, last)
	return nil
}

const (
	// lookups is how often the journal is asked, at most, while its answer is doubtful.
	lookups     = 5
	lookupPause = 50 * time.Millisecond
)

// last is the ordinal of the container's last entry in the journal. journalctl passes over a file that journald extends or renames just
// then, and succeeds. So an answer is believed at once only when it can be all: not when journalctl has
// something to say, nor when the journal has less than it was given. When it stays so, a file is spoiled, or somebody has emptied the journal.
func (j *journal) last(ctx context.Context) (int64, error) {
	if err := j.access.sync(ctx); err != nil {
		return 0, err
	}
	for n := 1; ; n++ {
		last, whole, err := j.access.last(ctx, j.id, j.epoch)
		if err != nil || n == lookups || whole && last > 0 && last >= j.have {
			return last, err
		}
		select {
		case <-time.After(lookupPause):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// epochOf is a container's epoch: 64 hexadecimal digits, as Docker's are. It is derived and not drawn, so that
// it is known also after the death of a daemon that had not saved anything yet.
func epochOf(id string) string {
	sum := sha256.Sum256([]byte("log epoch\x00" + id))
	return hex.EncodeToString(sum[:])
}

// syncJournal has journalctl wait until the journal has taken in what waits in its socket.
func syncJournal(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "journalctl", "--sync").CombinedOutput(); err != nil {
		return fmt.Errorf("cannot find out what the journal has: journalctl --sync: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// lastInJournal asks journalctl.
func lastInJournal(ctx context.Context, id, epoch string) (ordinal int64, whole bool, err error) {
	cmd := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--lines=1", "--output=json", "--output-fields="+fieldOrdinal,
		fieldFullID+"="+id, fieldEpoch+"="+epoch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, false, fmt.Errorf("cannot find out what the journal has: journalctl: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	whole = stderr.Len() == 0
	if len(bytes.TrimSpace(out)) == 0 {
		return 0, whole, nil
	}
	var e map[string]any
	if err := json.Unmarshal(out, &e); err != nil {
		return 0, false, fmt.Errorf("cannot read what journalctl says: %w", err)
	}
	text, _ := e[fieldOrdinal].(string)
	if ordinal, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, false, fmt.Errorf("cannot read %s of the last entry: %w", fieldOrdinal, err)
	}
	return ordinal, whole, nil
}

func (j *journal) size() int { return len(j.buf) }
func (j *journal) due() bool { return false }

func (j *journal) add(_ context.Context, e *entry) error {
	if e.ordinal <= j.have {
		return nil
	}
	b := j.buf
	b = appendField(b, "MESSAGE", e.line)
	priority := priorityInfo
	if e.stream == output.Stderr {
		priority = priorityErr
	}
	b = fmt.Appendf(b, "PRIORITY=%d\n%s=%d\n%s=", priority, fieldOrdinal, e.ordinal, fieldTimestamp)
	b = append(e.time.UTC().AppendFormat(b, time.RFC3339Nano), '\n')
	if e.piece > 0 {
		if e.more {
			b = append(b, fieldPartial+"=true\n"...)
		}
		b = fmt.Appendf(b, "%s=%x\n%s=%d\n%s=%t\n", fieldPieceOf, sha256.Sum256(fmt.Appendf(nil, "%s %d", j.epoch, e.first)), fieldPiece, e.piece, fieldLastPiece, !e.more)
	}
	j.buf = append(b, j.fixed...)
	j.ends = append(j.ends, len(j.buf))
	return nil
}

func (j *journal) flush(ctx context.Context) error {
	if j.sent == len(j.ends) {
		j.clear()
		return nil
	}
	if err := j.connect(); err != nil {
		return err
	}
	// A journal that does not read holds us up, and a stop of the forwarder ends that.
	defer context.AfterFunc(ctx, func() { _ = j.conn.SetWriteDeadline(time.Unix(1, 0)) })()
	for ; j.sent < len(j.ends); j.sent++ {
		end := j.ends[j.sent]
		err := j.send(j.buf[j.start:end])
		if err != nil {
			_ = j.conn.Close() // another try, another connection
			j.conn = nil
			return fmt.Errorf("cannot write to the journal: %w", err)
		}
		j.start = end
	}
	j.clear()
	return nil
}

func (j *journal) clear() {
	j.buf, j.ends, j.sent, j.start = j.buf[:0], j.ends[:0], 0, 0
}

// connect connects to the journal. With a connected socket, unlike one that
// names the address each time, the kernel says when there is room again.
func (j *journal) connect() error {
	if j.conn != nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: j.access.socket})
	if err != nil {
		return fmt.Errorf("cannot reach the journal: %w", err)
	}
	j.conn = conn
	return nil
}

// send sends one entry. One that is too large for a datagram goes as a file in memory, as the protocol has it.
func (j *journal) send(b []byte) error {
	_, err := j.conn.Write(b)
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	fd, err := unix.MemfdCreate("lrd-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "lrd-journal")
	defer f.Close() // the journal has its own by then
	if _, err := f.Write(b); err != nil {
		return err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	_, _, err = j.conn.WriteMsgUnix(nil, unix.UnixRights(fd), nil)
	return err
}

func (j *journal) save() any { return nil }

func (j *journal) rest() { j.buf, j.ends = nil, nil }

func (j *journal) close() error {
	if j.conn == nil {
		return nil
	}
	return j.conn.Close()
}
