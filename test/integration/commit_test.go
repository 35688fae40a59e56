//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestCommit is what a container has changed, and images made of it: diff, commit, ps --size.
func TestCommit(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.clients("commit", func(t *testing.T, l *lab) {
		l.exec("mkdir", "-p", "/srv/bind")
		l.docker("run", "--detach", "--name", "web", "--env", "A=1", "--label", "l=1", "--volume", "/vol", "--volume", "/srv/bind:/made/for/it", "busybox",
			"sh", "-c", "echo new > /root/new; echo more >> /etc/passwd; rm /bin/yes; mkdir /bin2; echo v > /vol/v; touch /ready; exec sleep 10000")
		l.eventually(time.Minute, "the container has written its files", func() bool { return l.hasFile("web", "/ready") })
		want := []string{"A /bin2", "A /ready", "A /root/new", "C /bin", "C /etc", "C /etc/passwd", "C /root", "D /bin/yes"}
		diff := func() string {
			lines := strings.Split(l.docker("diff", "web"), "\n")
			for i := range lines { // sorted by kind, to be compared
				lines[i] = strings.TrimSpace(lines[i])
			}
			return strings.Join(lines, "\n")
		}
		for _, line := range want {
			assert.Check(t, is.Contains(diff(), line))
		}
		assert.Check(t, is.Len(strings.Split(diff(), "\n"), len(want)), diff())
		size := l.docker("ps", "--size", "--format", "{{.Size}}")
		assert.Check(t, is.Regexp(`^[0-9]+B \(virtual [0-9.]+MB\)$`, size))

		id := l.docker("commit", "--author", "me", "--message", "what for", "--change", `CMD ["cat", "/root/new"]`, "--change", "ENV B=2", "web", "made:1")
		assert.Check(t, is.Equal(l.inspect("web").State.Status, container.StateRunning))
		assert.Check(t, is.Equal(l.docker("inspect", "--format", "{{.Id}} {{.Author}} {{.Config.Env}} {{.Config.Labels.l}} {{.Config.Cmd}}", "made:1")[:len(id)], id))
		assert.Check(t, is.Contains(l.docker("inspect", "--format", "{{.Author}} {{.Config.Env}} {{.Config.Labels.l}} {{.Config.Cmd}}", "made:1"), "B=2] 1 [cat /root/new]"))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "made:1"), "new"))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "made:1", "sh", "-c", "ls /bin/yes /vol/v; cat /ready; tail -n1 /etc/passwd; echo $A$B"), "more\n12"))
		assert.Check(t, is.Contains(l.docker("history", "--no-trunc", "made:1"), "what for"))
		// Of one that has ended, without a name, and on top of what was made.
		l.docker("run", "--name", "second", "made:1", "sh", "-c", "echo second > /root/second")
		id = l.docker("commit", "--pause=false", "second")
		assert.Check(t, is.Equal(l.docker("run", "--rm", id, "cat", "/root/new", "/root/second"), "new\nsecond"))
		l.docker("stop", "--time", "0", "web")
		l.docker("commit", "web", "registry.example:5000/a/b:tag")
		l.docker("rmi", id, "registry.example:5000/a/b:tag")
		l.refused(1, []string{"invalid"}, "commit", "web", "Not:A:Name")
		l.refused(1, []string{"not a valid change command"}, "commit", "--change", "RUN x", "web")
		l.refused(1, []string{"No such container: nobody"}, "commit", "nobody")
		l.docker("rm", "web", "second")
		l.docker("rmi", "made:1")
		assert.Check(t, is.Equal(l.docker("images", "--quiet", "--filter", "dangling=true"), ""))
	})

	l.clients("prune", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "running", "busybox", "sleep", "10000")
		l.docker("run", "--name", "ended", "busybox", "sh", "-c", "head -c 100000 /dev/zero > /file")
		l.docker("create", "--name", "labelled", "--label", "keep", "busybox")
		assert.Check(t, is.Equal(l.docker("container", "prune", "--force", "--filter", "until=1h"), "Total reclaimed space: 0B"))
		ended := l.inspect("ended").ID
		got := l.docker("container", "prune", "--force", "--filter", "label!=keep")
		assert.Check(t, is.Equal(got, "Deleted Containers:\n"+ended+"\n\nTotal reclaimed space: 100kB"))
		got = l.docker("system", "prune", "--force", "--volumes")
		assert.Check(t, is.Contains(got, "Deleted Containers:"))
		assert.Check(t, is.Equal(l.docker("ps", "--all", "--format", "{{.Names}}"), "running"))
		l.refused(1, []string{"until"}, "container", "prune", "--force", "--filter", "until=yesterday")
	})
}

// TestCommitCut cuts a commit short: by the daemon's SIGKILL and by a machine that loses power. No image is broken, no layer
// stays, and the container that was suspended for it goes on.
func TestCommitCut(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "--detach", "--name", "big", "busybox", "sh", "-c", "dd if=/dev/urandom of=/blob bs=1M count=24 2>/dev/null; touch /ready; exec sleep 10000")
	l.eventually(time.Minute, "the container has written its files", func() bool { return l.hasFile("big", "/ready") })
	layers := func() string { return l.exec("sh", "-c", "ls /var/lib/lrd/storage/overlay | grep -E '^[0-9a-f]{64}$'") }
	before := layers()
	for i := range rounds(t, 4, 50) {
		cmd := l.dockerCmd("commit", "big", fmt.Sprintf("cut:%d", i))
		assert.NilError(t, cmd.Start())
		time.Sleep(time.Duration(20+i*37%160) * time.Millisecond)
		l.kill9()
		whole := cmd.Wait() == nil
		l.eventually(time.Minute, "the container goes on", func() bool { return l.inspect("big").State.Status == container.StateRunning })
		images := strings.Fields(l.docker("images", "--quiet", "--no-trunc", "cut"))
		assert.Check(t, !whole || len(images) == 1)
		for _, id := range strings.Fields(l.docker("images", "--all", "--quiet", "--no-trunc")) { // also one that got no name
			if strings.Contains(l.docker("history", "--no-trunc", id), "sleep 10000") {
				assert.Check(t, is.Equal(l.docker("run", "--rm", id, "sh", "-c", "wc -c < /blob"), "25165824"))
				l.docker("rmi", "--force", id)
			}
		}
		assert.Check(t, is.Equal(layers(), before))
	}
	assert.Check(t, is.Equal(len(l.fileOf("big", "/blob")), 24<<20))
}
