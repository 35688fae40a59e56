package sessions

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Media types of the Docker Engine API for hijacked streams.
const (
	MediaTypeRaw         = "application/vnd.docker.raw-stream"
	MediaTypeMultiplexed = "application/vnd.docker.multiplexed-stream"
)

// ErrNoTakeover says that the connection of a request cannot be taken over: it is not HTTP/1.1, or a wrapper hides it.
var ErrNoTakeover = errors.New("this connection cannot be upgraded to a stream")

// Conn is a client's connection after HTTP. Reading gives first what net/http had read already.
type Conn struct {
	net.Conn
	early io.Reader // bytes read by net/http, then the connection
}

// TakeOver takes the connection of a request over from net/http and sends the head of the response: 101
// UPGRADED to a client that asked for an upgrade, the older 200 to one that did not. From here on HTTP has
// nothing to say; the caller owns the Conn.
//
// An error before the takeover is [ErrNoTakeover], and an HTTP answer is still possible; after any other
// error the connection is closed.
func TakeOver(w http.ResponseWriter, r *http.Request, mediaType string) (*Conn, error) {
	raw, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTakeover, err)
	}
	// net/http may have left a deadline from reading the request.
	if err := raw.SetDeadline(time.Time{}); err != nil {
		raw.Close()
		return nil, fmt.Errorf("cannot take over the client's connection: %w", err)
	}
	if _, err := io.WriteString(raw, head(r, mediaType)); err != nil {
		raw.Close()
		return nil, fmt.Errorf("cannot answer the client: %w", err)
	}
	return newConn(raw, rw.Reader), nil
}

// head is the head of the response. A client without Upgrade is always told "raw": that is what such clients
// were written for.
func head(r *http.Request, mediaType string) string {
	if _, ok := r.Header["Upgrade"]; !ok {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + MediaTypeRaw + "\r\n\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

func newConn(raw net.Conn, buffered *bufio.Reader) *Conn {
	c := &Conn{Conn: raw, early: raw}
	if buffered != nil && buffered.Buffered() > 0 {
		c.early = io.MultiReader(io.LimitReader(buffered, int64(buffered.Buffered())), raw)
	}
	return c
}

// Read reads what the client sent.
func (c *Conn) Read(p []byte) (int, error) {
	return c.early.Read(p)
}

// CloseWrite tells the client that nothing more comes, and leaves the other direction open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// awaitGone returns when the client has closed the connection as a whole, or when the read deadline of the
// connection has passed. It is called after Read returned io.EOF, which a client that only shut down its
// writing side causes too.
//
// On a unix socket POLLHUP is set exactly when the peer is gone. On TCP the two cannot be told apart without
// writing: there this waits for a reset.
func (c *Conn) awaitGone() {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return
	}
	// Read calls the function again each time the runtime's poller hears of the descriptor; a hang-up is one
	// of those times.
	_ = rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

// lingerTime bounds how long a finished session waits for the client to close. It is far more than a living
// client needs.
const lingerTime = 5 * time.Second

// Finish says goodbye without losing what is on its way: closing a unix socket that holds unread input would
// make the client's read fail with ECONNRESET before it has read everything. So the writing side is closed
// first, and input thrown away until the client closes, lingerTime has passed or ctx is done. The caller
// closes the connection.
func (c *Conn) Finish(ctx context.Context) {
	if c.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(past) })
	defer stop()
	_, _ = io.Copy(io.Discard, c)
}
