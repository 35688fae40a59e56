package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFiles is how many descriptors a packet has: SCM_MAX_FD of unix(7), less a few.
	maxFiles = 240
	// maxLogs bounds the text of a packet: a Log takes a few hundred bytes.
	maxLogs = 100
	// maxPacket is more than any packet has of text, and less than a socket's buffer (net.core.wmem_default).
	maxPacket = 128 << 10
)

// conn is one connection of packets.
type conn struct {
	c   *net.UnixConn
	buf []byte // made when the first packet is received
}

// send sends a packet. The files stay the caller's.
func (c *conn) send(p packet, files []File) error {
	p.Version = Version
	fds := make([]int, len(files))
	for i, f := range files {
		p.Names = append(p.Names, f.Name)
		p.New = append(p.New, f.New)
		var err error
		if fds[i], err = number(f.File); err != nil {
			return fmt.Errorf("cannot pass %s: %w", f.Name, err)
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(data) > maxPacket {
		return fmt.Errorf("cannot send a packet of %d bytes", len(data))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.c.WriteMsgUnix(data, rights, nil)
	runtime.KeepAlive(files)
	return err
}

// number is the number of a descriptor, which is good as long as nobody closes f.
func number(f *os.File) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// receive waits for a packet. The files are the caller's.
func (c *conn) receive() (_ packet, files []File, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxPacket)
	}
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, rn, flags, _, err := c.c.ReadMsgUnix(c.buf, rights)
	if err != nil {
		return packet{}, nil, err
	}
	fds := received(rights[:rn])
	defer func() {
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	}()
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		return packet{}, nil, errors.New("a packet was cut off (out of descriptors?)")
	}
	p, err := decode(c.buf[:n])
	if err != nil {
		return packet{}, nil, err
	}
	if len(fds) != len(p.Names) {
		return packet{}, nil, fmt.Errorf("a packet has %d descriptors and %d names", len(fds), len(p.Names))
	}
	for i, fd := range fds {
		files = append(files, File{Name: p.Names[i], File: os.NewFile(uintptr(fd), p.Names[i]), New: i < len(p.New) && p.New[i]})
	}
	return p, files, nil
}

// received are the descriptors of a packet; all of them are CLOEXEC, which net asks for.
func received(rights []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// until makes reading and writing return when ctx is done, until stop is called.
func (c *conn) until(ctx context.Context) (stop func()) {
	after := context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })
	return func() { after() }
}

// CloseFiles closes files.
func CloseFiles(files []File) {
	for _, f := range files {
		_ = f.File.Close()
	}
}

// cutOff says whether an error is that the other side went away.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
