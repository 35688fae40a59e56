package sessions

import (
	"bytes"
	"net/http"
	"time"
)

// Media types of the Docker Engine API for hijacked streams.
const (
	MediaTypeRaw         = "application/vnd.docker.raw-stream"
	MediaTypeMultiplexed = "application/vnd.docker.multiplexed-stream"
)

// UpgradeHead is the head of the response that makes a stream of the connection. A client without Upgrade is
// always told "raw": that is what such clients were written for.
func UpgradeHead(r *http.Request, mediaType string) []byte {
	if _, ok := r.Header["Upgrade"]; !ok {
		return []byte("HTTP/1.1 200 OK\r\nContent-Type: " + MediaTypeRaw + "\r\n\r\n")
	}
	return []byte("HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
}

// BodyHead is the head of a response 200 with the headers h, whose body has no length yet. chunked says whether
// the body is to be sent in chunks; to a client of HTTP/1.0 it is what comes until the connection closes. The
// connection ends with the response: net/http does not get it back.
func BodyHead(r *http.Request, h http.Header) (head []byte, chunked bool) {
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
