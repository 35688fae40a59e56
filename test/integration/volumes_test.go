//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestVolumes is what `docker volume` and --mount have besides the plain cases.
func TestVolumes(t *testing.T) {
	t.Parallel()
	l := boot(t)
	mounted := func(volume string) bool {
		return l.tryExec("mountpoint", "--quiet", "/var/lib/lrd/volumes/"+volume+"/_data").code == 0
	}

	l.clients("options", func(t *testing.T, l *lab) {
		l.exec("mkdir", "-p", "/srv/dir")
		l.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=2m,uid=33", "--label", "a=b", "ram")
		l.docker("volume", "create", "--opt", "type=none", "--opt", "device=/srv/dir", "--opt", "o=bind", "bound")
		assert.Check(t, is.Equal(l.docker("volume", "inspect", "--format", "{{.Options.type}} {{.Options.o}} {{.Labels.a}} {{.Driver}} {{.Scope}}", "ram"), "tmpfs size=2m,uid=33 b local local"))
		l.refused(1, []string{`missing required option: "device"`}, "volume", "create", "--opt", "type=tmpfs", "x1")
		l.refused(1, []string{`invalid option: "colour"`}, "volume", "create", "--opt", "colour=red", "x2")
		assert.Check(t, !mounted("ram"))
		l.docker("run", "--detach", "--name", "one", "--volume", "ram:/ram", "--volume", "bound:/bound", "busybox", "sh", "-c",
			"echo kept > /ram/file; echo bound > /bound/file; stat -f -c %b*%S /ram > /bound/new; mv /bound/new /bound/size; exec sleep 10000")
		l.eventually(time.Minute, "the container has written", func() bool { return l.hasFile("one", "/bound/size") })
		assert.Check(t, is.Equal(l.fileOf("one", "/bound/size"), "512*4096\n"))
		assert.Check(t, is.Equal(l.readFile("/srv/dir/file"), "bound\n"))
		// It stays over a restart and a SIGKILL of lrd, and others see the same.
		l.restart()
		l.kill9()
		assert.Check(t, mounted("ram") && mounted("bound"))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--volume", "ram:/ram", "busybox", "cat", "/ram/file"), "kept"))
		l.refused(1, []string{"volume is in use"}, "volume", "rm", "ram")
		assert.Check(t, is.Equal(l.docker("volume", "ls", "--quiet", "--filter", "dangling=true"), ""))
		// It goes with the last container, also if that ended while lrd was away.
		l.stop()
		l.exec("sh", "-c", "systemctl kill --signal=KILL 'lrd-*.service' --kill-who=main; while systemctl is-active --quiet lrd.slice && pgrep -x sleep >/dev/null; do sleep 0.05; done")
		l.start()
		l.eventually(time.Minute, "the volumes are unmounted", func() bool { return !mounted("ram") && !mounted("bound") })
		// A copy mounts it for as long as it takes.
		assert.Check(t, is.Equal(l.fileOf("one", "/bound/file"), "bound\n"))
		l.eventually(time.Minute, "the volume is unmounted", func() bool { return !mounted("bound") })
		l.docker("rm", "one")
		l.docker("volume", "create", "--opt", "type=none", "--opt", "device=/no/where", "--opt", "o=bind", "wrong")
		l.refused(1, []string{"failed to mount local volume", "no such file or directory"}, "create", "--volume", "wrong:/x", "busybox")
		l.docker("volume", "rm", "ram", "bound", "wrong")
		assert.Check(t, is.Equal(l.readFile("/srv/dir/file"), "bound\n"), "what was bound is not the volume's to delete")
	})

	l.clients("mount", func(t *testing.T, l *lab) {
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1700", "busybox", "sh", "-c", "stat -c %a /t; stat -f -c %b*%S /t"), "1700\n256*4096"))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--mount", "type=volume,target=/etc,volume-nocopy", "busybox", "ls", "/etc"), "hostname\nhosts\nresolv.conf"), "an empty one")
		l.exec("sh", "-c", "mkdir -p /srv/outer/inner && mountpoint -q /srv/outer/inner || mount -t tmpfs none /srv/outer/inner && touch /srv/outer/inner/below")
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--mount", "type=bind,source=/srv/outer,target=/o,readonly", "busybox", "sh", "-c", "ls /o/inner; touch /o/x /o/inner/x 2>/dev/null || echo refused"), "below\nrefused"))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--mount", "type=bind,source=/srv/outer,target=/o,bind-nonrecursive", "busybox", "ls", "/o/inner"), ""))
		l.refused(125, []string{"bind source path does not exist: /not/there"}, "run", "--rm", "--mount", "type=bind,source=/not/there,target=/o", "busybox")
		l.docker("run", "--rm", "--volume", "/srv/made/by/v:/v", "busybox", "true")
		l.exec("test", "-d", "/srv/made/by/v")
		l.docker("volume", "create", "shared")
		l.docker("run", "--rm", "--volume", "shared:/v", "busybox", "sh", "-c", "mkdir /v/part; echo part > /v/part/file; echo single > /v/single; ln -s /etc /v/out; ln -s /part /v/alias")
		l.docker("run", "--name", "source", "--volume", "shared:/v", "busybox")
		assert.Check(t, is.Equal(l.docker("run", "--rm", "--volumes-from", "source:ro", "busybox", "sh", "-c", "cat /v/part/file; touch /v/x 2>/dev/null || echo refused"), "part\nrefused"))
		l.refused(125, []string{"invalid mode for volumes-from: sideways"}, "run", "--rm", "--volumes-from", "source:sideways", "busybox")
		l.docker("rm", "source")
		l.docker("volume", "rm", "shared")
		l.exec("umount", "/srv/outer/inner")
	})

	l.newest("subpath", func(t *testing.T, l *lab) { // of clients since 26
		l.docker("volume", "create", "shared")
		l.docker("run", "--rm", "--volume", "shared:/v", "busybox", "sh", "-c", "mkdir /v/part; echo part > /v/part/file; echo single > /v/single; ln -s /etc /v/out; ln -s /part /v/alias")
		sub := func(path string) []string {
			return []string{"--mount", "type=volume,source=shared,target=/s,volume-subpath=" + path}
		}
		for path, want := range map[string]string{"part": "cat /s/file", "alias": "cat /s/file"} {
			assert.Check(t, is.Equal(l.docker(append(append([]string{"run", "--rm"}, sub(path)...), "busybox", "sh", "-c", want)...), "part"), path)
		}
		assert.Check(t, is.Equal(l.docker(append(append([]string{"run", "--rm"}, sub("single")...), "busybox", "cat", "/s")...), "single"))
		// A link that leads out of the volume leads to nothing in it.
		for _, path := range []string{"out", "none"} {
			l.refused(127, []string{"no such file or directory"}, append(append([]string{"run", "--rm"}, sub(path)...), "busybox")...)
		}
		l.docker(append(append([]string{"run", "--detach", "--name", "part"}, sub("part")...), "busybox", "sleep", "10000")...)
		l.kill9()
		assert.Check(t, is.Equal(l.fileOf("part", "/s/file"), "part\n"))
		l.docker("stop", "--time", "0", "part")
		assert.Check(t, is.Equal(l.fileOf("part", "/s/file"), "part\n"))
		l.docker("rm", "part")
		l.eventually(time.Minute, "no part is mounted", func() bool {
			return l.exec("sh", "-c", "ls /run/lrd/mounts 2>/dev/null; grep -c /run/lrd/mounts /proc/self/mountinfo || true") == "0"
		})
		l.docker("volume", "rm", "shared")
	})

	l.clients("prune", func(t *testing.T, l *lab) {
		l.docker("volume", "create", "--label", "keep", "named")
		l.docker("run", "--rm", "--volume", "named:/v", "busybox", "sh", "-c", "head -c 100000 /dev/zero > /v/file")
		l.docker("run", "--name", "user", "--volume", "used:/u", "--volume", "/anon", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /anon/file")
		anon := l.docker("inspect", "--format", `{{range .Mounts}}{{if eq .Destination "/anon"}}{{.Name}}{{end}}{{end}}`, "user")
		assert.Check(t, is.Equal(l.docker("inspect", "--format", `{{range .Mounts}}{{if eq .Destination "/anon"}}{{.Source}}{{end}}{{end}}`, "user"), "/var/lib/lrd/volumes/"+anon+"/_data"))
		assert.Check(t, is.Contains(l.docker("system", "df", "--verbose"), "100kB"))
		l.refused(1, []string{"volume is in use"}, "volume", "rm", "used")
		l.restart()
		l.refused(1, []string{"volume is in use"}, "volume", "rm", "used") // also before anybody has looked at it
		l.docker("rm", "user")
		got := l.docker("volume", "prune", "--force", "--filter", "label!=keep")
		assert.Check(t, is.Contains(got, anon))
		if l.which == clientOld { // before API 1.42 all unused ones go
			assert.Check(t, is.Contains(got, "used\n"))
			assert.Check(t, is.Contains(got, "reclaimed space: 5kB"))
		} else {
			assert.Check(t, is.Equal(got, fmt.Sprintf("Deleted Volumes:\n%s\n\nTotal reclaimed space: 5kB", anon)))
			assert.Check(t, is.Contains(l.docker("volume", "prune", "--force", "--all", "--filter", "label!=keep"), "used"))
		}
		assert.Check(t, is.Equal(l.docker("volume", "ls", "--quiet", "--filter", "name=named", "--filter", "label=keep", "--filter", "driver=local"), "named"))
		l.docker("volume", "rm", "named")
	})

	// lrd is killed while volumes come and go: each is there or not, and none is there by half.
	for i := range rounds(t, 2, 50) {
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("cut%d", n%3)
				l.tryDocker("volume", "create", "--label", "cut", name)
				l.tryDocker("volume", "rm", name)
			}
		}()
		time.Sleep(time.Duration(50+i*53%200) * time.Millisecond)
		l.kill9()
		close(stop)
		<-done
		l.restart() // deletes what was on its way
		assert.Check(t, is.Equal(l.exec("sh", "-c", "cd /var/lib/lrd/volumes; ls -A | grep '^[.]' || true"), ""))
		for _, name := range strings.Fields(l.docker("volume", "ls", "--quiet", "--filter", "label=cut")) {
			l.exec("test", "-d", "/var/lib/lrd/volumes/"+name+"/_data")
			l.docker("volume", "rm", name)
		}
	}
}
