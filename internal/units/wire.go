package units

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// wire is the connection as godbus reads it. It does two things that make what PID 1 says cheaper to hear:
//
//   - it reads ahead. godbus alone makes four system calls for each message;
//   - it leaves out announcements of units that nobody watches. PID 1 tells such a connection everything about every unit: each mount
//     that a container needs has all mount units above it announced, several times. Most of what comes is not ours, and
//     would be decoded by reflection only to be thrown away.
//
// What it does not understand it passes on. Only one goroutine may read.
type wire struct {
	net.Conn
	in     *bufio.Reader
	filter *filter
	left   int64 // of the message that is being read
}

// readAhead is the size of the buffer: several announcements.
const readAhead = 16 << 10

func newWire(c net.Conn, f *filter) *wire {
	return &wire{Conn: c, in: bufio.NewReaderSize(c, readAhead), filter: f}
}

// Read gives the next bytes of the conversation.
func (w *wire) Read(p []byte) (int, error) {
	for w.left == 0 {
		first, err := w.in.Peek(1)
		if err != nil {
			return 0, err
		}
		// A message begins with its byte order. No line of the authentication, which comes first, begins so.
		if first[0] != 'l' && first[0] != 'B' {
			return w.in.Read(p)
		}
		if w.left, err = w.next(); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	return n, err
}

// Write sends what godbus has to say. The line that ends the authentication is read by PID 1 before anything follows it: a
// call that comes in one read with it would lie in a buffer of systemd's until there is more to read.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err == nil && string(p) == "BEGIN\r\n" {
		err = w.awaitRead()
	}
	return n, err
}

// awaitRead waits until the other side has read all that was written. There is nothing to wait for but time; it takes PID 1 less than a millisecond.
// The end of the dialling, which closes the connection, is the end of this too.
func (w *wire) awaitRead() error {
	sock, ok := w.Conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T is no socket", w.Conn)
	}
	conn, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		unread, ioctlErr := 0, error(nil)
		if err := conn.Control(func(fd uintptr) { unread, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
			return err
		}
		if ioctlErr != nil || unread == 0 {
			return ioctlErr
		}
		time.Sleep(pause)
	}
}

// fixedHeader is the size of the part of a message's header that is always there, up to and with the length of its fields.
const fixedHeader = 16

// next is the size of the next message in bytes, or 0 if that was left out.
func (w *wire) next() (int64, error) {
	head, err := w.in.Peek(fixedHeader)
	if err != nil {
		return 0, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'B' {
		order = binary.BigEndian
	}
	signal := dbus.Type(head[1]) == dbus.TypeSignal
	body, fields := int64(order.Uint32(head[4:])), int64(order.Uint32(head[12:]))
	size := fixedHeader + (fields+7)/8*8 + body
	if !signal || fixedHeader+fields > readAhead {
		return size, nil
	}
	header, err := w.in.Peek(int(fixedHeader + fields))
	if err != nil {
		return 0, err
	}
	if w.filter.wants(header[fixedHeader:], order) {
		return size, nil
	}
	_, err = io.CopyN(io.Discard, w.in, size)
	return 0, err
}

// filter says which units' announcements are wanted: those whose object path begins with one of the prefixes.
type filter struct {
	prefixes atomic.Pointer[[]string]
}

// wants looks at the fields of a signal's header: structures of a code and a variant, each at a multiple of 8 (D-Bus specification,
// "Message Format"). What matters are two of them, and all that signals have are strings, object paths and signatures.
func (f *filter) wants(fields []byte, order binary.ByteOrder) bool {
	var path, member []byte
	for at := 0; at+8 <= len(fields) && (path == nil || member == nil); at = (at + 7) / 8 * 8 {
		code, kind := dbus.HeaderField(fields[at]), fields[at+2]
		begin, size := at+8, int64(order.Uint32(fields[at+4:]))
		switch {
		case fields[at+1] != 1:
			return true // a value of a type with more than one letter
		case kind == 'g':
			begin, size = at+5, int64(fields[at+4])
		case kind != 's' && kind != 'o':
			return true
		}
		if int64(begin)+size > int64(len(fields)) {
			return true
		}
		at = begin + int(size)
		if code == dbus.FieldPath {
			path = fields[begin:at]
		}
		if code == dbus.FieldMember {
			member = fields[begin:at]
		}
		at++ // the zero byte at its end
	}
	if string(member) != "PropertiesChanged" || !bytes.HasPrefix(path, []byte(unitPrefix)) {
		return true
	}
	prefixes := f.prefixes.Load()
	return prefixes != nil && slices.ContainsFunc(*prefixes, func(p string) bool { return strings.HasPrefix(string(path), p) })
}

// add wants the announcements of units whose names begin with prefix, from now on and for good.
func (f *filter) add(prefix string) {
	path := unitPrefix
	if prefix != "" {
		path = string(unitPath(prefix))
	}
	for {
		old := f.prefixes.Load()
		all := []string{path}
		if old != nil {
			all = append(all, *old...)
		}
		if f.prefixes.CompareAndSwap(old, &all) {
			return
		}
	}
}
