//go:build integration

package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
)

// connecting is how many clients connect at once: more than a listening socket
// takes by default on old kernels (128).
const connecting = 200

// TestConnectWhileAway is promise 7: who connects while there is no lrd waits,
// and is answered by the next one. Each client makes a connection of its own
// and tries once.
func TestConnectWhileAway(t *testing.T) {
	t.Parallel()
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		l := boot(t)
		id := l.docker("run", "--detach", "--network", "none", "busybox", "sleep", "10000")
		l.stop()
		answered := l.connectAll(id) // the socket starts lrd
		answered()
	})
	t.Run("restarting", func(t *testing.T) {
		t.Parallel()
		l := boot(t)
		id := l.docker("run", "--detach", "--network", "none", "busybox", "sleep", "10000")
		// The new lrd comes up only after all have connected: there is no luck in it.
		l.writeFile("/run/systemd/system/lrd.service.d/slow.conf",
			"[Service]\nExecStartPre=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.05; done'\n")
		l.exec("systemctl", "daemon-reload")
		restarted := make(chan result, 1)
		go func() { restarted <- l.tryExec("systemctl", "restart", "lrd.service") }()
		l.eventually(20*time.Second, "lrd is between two lives", func() bool {
			return l.exec("systemctl", "show", "--property=SubState", "--value", "lrd.service") == "start-pre"
		})
		answered := l.connectAll(id)
		l.eventually(20*time.Second, "all are connected", func() bool { return l.waiting() == connecting })
		l.writeFile("/run/go", "")
		answered()
		assert.Equal(t, (<-restarted).code, 0)
	})
}

// connectAll lets clients ask for a container's status, all at the same time.
// What it returns waits for their answers.
func (l *lab) connectAll(id string) (wait func()) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), commandTimeout)
	l.t.Cleanup(cancel)
	var group sync.WaitGroup
	var ok atomic.Int32
	errs := make(chan error, connecting)
	for range connecting {
		c := l.client()
		group.Go(func() {
			r, err := c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
			switch {
			case err != nil:
				errs <- err
			case !r.Container.State.Running:
				errs <- fmt.Errorf("the container is shown as %s", r.Container.State.Status)
			default:
				ok.Add(1)
			}
		})
	}
	return func() {
		l.t.Helper()
		group.Wait()
		close(errs)
		for err := range errs {
			l.t.Error(err)
		}
		assert.Equal(l.t, ok.Load(), int32(connecting))
	}
}

// waiting counts the connections in the socket's backlog.
func (l *lab) waiting() (n int) {
	l.t.Helper()
	// A connection that nobody has accepted yet has no path and no inode of its own at the listener's end.
	_, err := fmt.Sscan(l.exec("sh", "-c", "ss --no-header --unix --listening src /run/lrd.sock | awk '{ print $3 }'"), &n)
	assert.NilError(l.t, err)
	return n
}
