package api

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

func TestTakeOver(t *testing.T) {
	for _, tc := range []struct {
		name, upgrade, wantHead string
	}{
		{"upgrade", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaTypeMultiplexed + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"the older way", "", "HTTP/1.1 200 OK\r\nContent-Type: " + mediaTypeRaw + "\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			assert.NilError(t, err)
			got := make(chan string, 1)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, err := hijack(w)
				if err == nil {
					_, err = conn.Write(upgradeHead(r, mediaTypeMultiplexed))
				}
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				in, _ := io.ReadAll(conn)
				got <- string(in)
			})}
			go srv.Serve(l)
			defer srv.Close()
			c, err := net.Dial("unix", l.Addr().String())
			assert.NilError(t, err)
			defer c.Close()
			// Input in the same segment as the head: net/http has read it before the takeover.
			_, err = io.WriteString(c, "POST /attach HTTP/1.1\r\nHost: x\r\n"+tc.upgrade+"\r\nearly ")
			assert.NilError(t, err)
			head := make([]byte, len(tc.wantHead))
			_, err = io.ReadFull(bufio.NewReader(c), head)
			assert.NilError(t, err)
			assert.Equal(t, string(head), tc.wantHead)
			_, err = io.WriteString(c, "late")
			assert.NilError(t, err)
			assert.NilError(t, c.(*net.UnixConn).CloseWrite())
			assert.Equal(t, <-got, "early late")
		})
	}
}
