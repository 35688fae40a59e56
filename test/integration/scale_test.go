//go:build integration

package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"
)

// manyContainers have three descriptors each in systemd's store: input, output, errors.
const manyContainers = 300

// TestManyContainers restarts lrd with 300 containers: all are taken back,
// none has noticed. How long it took is printed, not judged.
func TestManyContainers(t *testing.T) {
	t.Parallel()
	l := boot(t)
	begin := time.Now()
	l.startMany("many", manyContainers, "head", "-n", "1") // waits for a line and says it
	t.Logf("%d containers created and started in %s", manyContainers, time.Since(begin).Round(time.Millisecond))
	before := l.pids()
	assert.Equal(t, len(before), manyContainers)
	assert.Equal(t, l.stored(), 3*manyContainers)

	for _, how := range []struct {
		name string
		do   func()
	}{{"restart", l.restart}, {"SIGKILL", l.kill9}, {"stop and start", func() { l.stop(); l.start() }}} {
		begin := time.Now()
		how.do()
		t.Logf("%s with %d containers: from start to READY %s, %s in all", how.name, manyContainers, l.toReady(), time.Since(begin).Round(time.Millisecond))
		assert.DeepEqual(t, l.pids(), before)
		assert.Equal(t, l.stored(), 3*manyContainers, how.name)
	}
	// They are not only listed: each reads what it is sent, and its answer arrives.
	for _, i := range []int{1, manyContainers / 2, manyContainers} {
		name := fmt.Sprint("many-", i)
		cmd := l.dockerCmd("attach", name)
		cmd.Stdin = strings.NewReader("last words of " + name + "\n")
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err)
		assert.Equal(t, string(out), "last words of "+name+"\n")
	}
	begin = time.Now()
	l.removeMany()
	t.Logf("%d containers removed in %s", manyContainers, time.Since(begin).Round(time.Millisecond))
	l.assertClean()
}

// startMany starts n containers with an input. Through the library: three
// hundred docker clients would be most of the work.
func (l *lab) startMany(prefix string, n int, cmd ...string) {
	l.t.Helper()
	c := l.client()
	group, ctx := errgroup.WithContext(l.t.Context())
	group.SetLimit(8)
	for i := 1; i <= n; i++ {
		group.Go(func() error {
			name := fmt.Sprint(prefix, "-", i)
			made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
				Name: name,
				Config: &container.Config{
					Image: "busybox", Cmd: cmd,
					OpenStdin: true, StdinOnce: true,
				},
				HostConfig: &container.HostConfig{NetworkMode: "none"},
			})
			if err != nil {
				return fmt.Errorf("create %s: %w", name, err)
			}
			if _, err := c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
				return fmt.Errorf("start %s: %w", name, err)
			}
			return nil
		})
	}
	assert.NilError(l.t, group.Wait())
}

// removeMany removes all containers, several at a time.
func (l *lab) removeMany() {
	l.t.Helper()
	c := l.client()
	list, err := c.ContainerList(l.t.Context(), client.ContainerListOptions{All: true})
	assert.NilError(l.t, err)
	group, ctx := errgroup.WithContext(l.t.Context())
	group.SetLimit(8)
	for _, s := range list.Items {
		group.Go(func() error {
			_, err := c.ContainerRemove(ctx, s.ID, client.ContainerRemoveOptions{Force: true})
			return err
		})
	}
	assert.NilError(l.t, group.Wait())
}

// pids are the processes of the running containers, as lrd shows them, by name.
func (l *lab) pids() map[string]int {
	l.t.Helper()
	c := l.client()
	list, err := c.ContainerList(l.t.Context(), client.ContainerListOptions{})
	assert.NilError(l.t, err)
	pids := map[string]int{}
	for _, s := range list.Items {
		r, err := c.ContainerInspect(context.Background(), s.ID, client.ContainerInspectOptions{})
		assert.NilError(l.t, err)
		assert.Equal(l.t, r.Container.State.Error, "", s.Names[0])
		pids[s.Names[0]] = r.Container.State.Pid
	}
	return pids
}

// stored is how many descriptors systemd keeps for lrd.
func (l *lab) stored() int {
	l.t.Helper()
	n, err := strconv.Atoi(l.exec("systemctl", "show", "--property=NFileDescriptorStore", "--value", "lrd.service"))
	assert.NilError(l.t, err)
	return n
}

// toReady is how long lrd's last start took, as systemd saw it.
func (l *lab) toReady() time.Duration {
	l.t.Helper()
	var started, ready int64
	_, err := fmt.Sscan(strings.ReplaceAll(l.exec("systemctl", "show", "--value",
		"--property=ExecMainStartTimestampMonotonic", "--property=ActiveEnterTimestampMonotonic", "lrd.service"), "\n", " "), &started, &ready)
	assert.NilError(l.t, err)
	if started > ready { // systemctl has its own order
		started, ready = ready, started
	}
	return (time.Duration(ready-started) * time.Microsecond).Round(time.Millisecond)
}
