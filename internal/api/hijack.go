package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"time"

	"lrd/internal/sessions"
)

// hijack takes the connection of a request over from net/http. From here on HTTP has nothing to say; the caller owns
// the Conn, and sends the head of the response.
//
// An error before the takeover is [sessions.ErrNoTakeover], and an HTTP answer is still possible; after any other
// error the connection is closed.
func hijack(w http.ResponseWriter) (*sessions.Conn, error) {
	raw, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sessions.ErrNoTakeover, err)
	}
	// net/http may have left a deadline from reading the request.
	if err := raw.SetDeadline(time.Time{}); err != nil {
		raw.Close()
		return nil, fmt.Errorf("cannot take over the client's connection: %w", err)
	}
	early := make([]byte, rw.Reader.Buffered())
	if _, err := io.ReadFull(rw.Reader, early); err != nil {
		raw.Close()
		return nil, fmt.Errorf("cannot take over the client's connection: %w", err)
	}
	c, err := sessions.NewConn(raw, early)
	if err != nil {
		raw.Close()
	}
	return c, err
}

// Media types of the Docker Engine API for hijacked streams.
const (
	mediaTypeRaw         = "application/vnd.docker.raw-stream"
	mediaTypeMultiplexed = "application/vnd.docker.multiplexed-stream"
)

// upgradeHead is the head of the response that makes a stream of the connection. A client without Upgrade is
// always told "raw": that is what such clients were written for.
func upgradeHead(r *http.Request, mediaType string) []byte {
	if _, ok := r.Header["Upgrade"]; !ok {
		return []byte("HTTP/1.1 200 OK\r\nContent-Type: " + mediaTypeRaw + "\r\n\r\n")
	}
	return []byte("HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
}

// bodyHead is the head of a response 200 with the headers h, whose body has no length yet. chunked says whether
// the body is to be sent in chunks; to a client of HTTP/1.0 it is what comes until the connection closes. The
// connection ends with the response: net/http does not get it back.
func bodyHead(r *http.Request, h http.Header) (head []byte, chunked bool) {
	chunked = r.ProtoAtLeast(1, 1)
	h = h.Clone()
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if chunked {
		h.Set("Transfer-Encoding", "chunked")
	}
	var b bytes.Buffer
	if chunked {
		b.WriteString("HTTP/1.1 200 OK\r\n")
	} else {
		b.WriteString("HTTP/1.0 200 OK\r\n")
	}
	_ = h.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes(), chunked
}
