//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestCopy is `docker cp` in both directions and all forms, to and from containers that run, have ended, and have
// never run.
func TestCopy(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", "-p", "/srv/bound", "/srv/ro")
	l.clients("cp", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "running", "--volume", "vol:/vol", "--volume", "/srv/bound:/bound", "--volume", "/srv/ro:/ro:ro",
			"--tmpfs", "/scratch", "busybox", "sh", "-c", "echo here > /scratch/new; mv /scratch/new /scratch/file; exec sleep 10000")
		l.docker("run", "--name", "ended", "--volume", "vol:/vol", "--volume", "/srv/ro:/ro:ro", "busybox", "true")
		l.docker("create", "--name", "created", "--volume", "vol:/vol", "--volume", "/srv/ro:/ro:ro", "busybox", "true")
		l.docker("create", "--name", "sealed", "--read-only", "--volume", "vol:/vol", "busybox", "true")
		l.docker("run", "--detach", "--name", "sealed-running", "--read-only", "--tmpfs", "/scratch", "busybox", "sleep", "10000")
		l.eventually(time.Minute, "the container has written its file", func() bool { return l.hasFile("running", "/scratch/file") })
		dir := t.TempDir()
		src := filepath.Join(dir, "src")
		assert.NilError(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(src, "sub", "file"), []byte("content"), 0o640))
		assert.NilError(t, os.Symlink("sub/file", filepath.Join(src, "link")))
		read := func(path string) string {
			t.Helper()
			data, err := os.ReadFile(filepath.Join(dir, path))
			assert.NilError(t, err)
			return string(data)
		}
		for _, c := range []string{"running", "ended", "created"} {
			// A directory to a place that is not there becomes that place; to one that is there, it goes into it.
			l.docker("cp", src, c+":/root/copy")
			l.docker("cp", src, c+":/root/copy")
			l.docker("cp", src+"/.", c+":/root/copy")
			l.docker("cp", c+":/root/copy", filepath.Join(dir, c))
			for _, file := range []string{"sub/file", "src/sub/file", "src/link"} {
				assert.Check(t, is.Equal(read(filepath.Join(c, file)), "content"), c)
			}
			l.docker("cp", c+":/root/copy/src/.", filepath.Join(dir, c+"-dot"))
			assert.Check(t, is.Equal(read(c+"-dot/sub/file"), "content"))
			// A file under another name, through a link of the container's, and what a link points to.
			l.docker("cp", filepath.Join(src, "sub", "file"), c+":/root/copy/renamed")
			l.docker("cp", "-L", filepath.Join(src, "link"), c+":/root/copy/followed")
			l.docker("cp", c+":/root/copy/followed", filepath.Join(dir, c+"-followed"))
			assert.Check(t, is.Equal(read(c+"-followed"), "content"))
			l.docker("cp", c+":/root/copy/link", filepath.Join(dir, c+"-link"))
			target, err := os.Readlink(filepath.Join(dir, c+"-link"))
			assert.NilError(t, err)
			assert.Check(t, is.Equal(target, "sub/file"))
			l.docker("cp", "-L", c+":/root/copy/link", filepath.Join(dir, c+"-L"))
			assert.Check(t, is.Equal(read(c+"-L"), "content"))
			// As streams.
			out := l.must("cp -", l.run(l.dockerCmd("cp", c+":/root/copy/src/sub", "-"), nil)).stdout
			assert.Check(t, is.Contains(out, "sub/file"))
			var in tarball
			in.add(tar.Header{Typeflag: tar.TypeReg, Name: "from-stdin", Mode: 0o600, Uid: 33, Gid: 44}, []byte("streamed"))
			l.must("cp - to", l.run(l.dockerCmd("cp", "-", c+":/tmp"), in.bytes()))
			l.docker("cp", "-a", c+":/tmp/from-stdin", filepath.Join(dir, c+"-stdin"))
			assert.Check(t, is.Equal(read(c+"-stdin"), "streamed"))
			// Into and out of a volume, and not into what is read-only.
			l.docker("cp", filepath.Join(src, "sub", "file"), c+":/vol/from-"+c)
			assert.Check(t, is.Equal(l.fileOf("running", "/vol/from-"+c), "content"))
			l.refused(1, []string{"mounted volume is marked read-only"}, "cp", src, c+":/ro/")
			l.refused(1, []string{"/nowhere/at/all"}, "cp", c+":/nowhere/at/all", dir)
			l.docker("cp", src, c+":/root/copy/dir-in-place-of")
			r := l.tryDocker("cp", filepath.Join(src, "sub", "file"), c+":/root/copy/no/such/dir/")
			assert.Check(t, r.code == 1, r)
		}
		assert.Check(t, is.Equal(l.docker("exec", "running", "stat", "-c", "%u:%g %a", "/tmp/from-stdin"), "33:44 600"))
		l.docker("cp", src, "running:/bound/"+filepath.Base(dir))
		assert.Check(t, is.Equal(l.readFile("/srv/bound/"+filepath.Base(dir)+"/sub/file"), "content"))
		l.docker("cp", "running:/scratch/file", filepath.Join(dir, "scratch"))
		assert.Check(t, is.Equal(read("scratch"), "here\n"))
		l.docker("cp", src, "running:/scratch/"+filepath.Base(dir))
		// All of it, without what is the kernel's.
		assert.NilError(t, os.Mkdir(filepath.Join(dir, "all"), 0o755))
		l.docker("cp", "running:/", filepath.Join(dir, "all"))
		assert.Check(t, is.Equal(read("all/scratch/file"), "here\n"))
		assert.Check(t, is.Equal(read("all/root/copy/sub/file"), "content"))
		for _, empty := range []string{"all/proc", "all/sys", "all/dev"} {
			entries, err := os.ReadDir(filepath.Join(dir, empty))
			assert.NilError(t, err)
			assert.Check(t, is.Len(entries, 0), empty)
		}
		l.refused(1, []string{"container rootfs is marked read-only"}, "cp", src, "sealed:/root/")
		l.refused(1, []string{"container rootfs is marked read-only"}, "cp", src, "sealed-running:/root/")
		l.docker("cp", src, "sealed:/vol/sealed-"+filepath.Base(dir))
		l.docker("cp", src, "sealed-running:/scratch/"+filepath.Base(dir))

		// Nothing stays mounted of a container that does not run, and nothing of a copy on the host.
		for _, name := range []string{"ended", "created", "sealed"} {
			l.unmounted(name)
		}
		l.docker("start", "created")
	})
}

// TestCopyHostile is a container that wants to be copied out of its own root: by links, and by swapping them.
func TestCopyHostile(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.writeFile("/srv/secret", "secret of the host")
	l.exec("mkdir", "-p", "/srv/victim")
	l.docker("run", "--detach", "--name", "hostile", "busybox", "sh", "-c", `
		mkdir -p /swap/victim /srv; echo harmless > /swap/secret; echo inside > /srv/secret
		ln -s /srv /link; ln -s /srv/secret /abs; ln -s ../../../../../../../srv/secret /up
		ln -s /proc/1/root/srv/secret /magic; mkfifo /fifo
		touch /ready
		while :; do mv /swap /swap2; mv /link /swap; mv /swap /link; mv /swap2 /swap; done`)
	l.eventually(time.Minute, "the container is ready", func() bool { return l.hasFile("hostile", "/ready") })
	dir := t.TempDir()
	for _, path := range []string{"/abs", "/up", "/magic"} {
		file := filepath.Join(dir, filepath.Base(path))
		l.docker("cp", "-L", "hostile:"+path, file)
		data, err := os.ReadFile(file)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(string(data), "inside\n"), path)
	}
	l.docker("cp", "hostile:/fifo", "-") // is not opened

	var in tarball
	in.add(tar.Header{Typeflag: tar.TypeReg, Name: "victim/planted", Mode: 0o600}, []byte("x"))
	for range rounds(t, 10, 300) {
		l.run(l.dockerCmd("cp", "-", "hostile:/swap"), in.bytes())
		out := l.run(l.dockerCmd("cp", "hostile:/swap/", "-"), nil)
		assert.Assert(t, !strings.Contains(out.stdout, "secret of the host"))
		out = l.run(l.dockerCmd("cp", "hostile:/swap/secret", "-"), nil)
		assert.Assert(t, !strings.Contains(out.stdout, "secret of the host"))
	}
	assert.Check(t, is.Equal(l.exec("ls", "/srv/victim"), ""))

	// Archives that lead out.
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../../srv/victim/x"},
		{Typeflag: tar.TypeLink, Name: "stolen", Linkname: "../../../srv/secret"},
	} {
		var in tarball
		in.add(h, nil)
		r := l.run(l.dockerCmd("cp", "-", "hostile:/root"), in.bytes())
		assert.Check(t, r.code == 1 && strings.Contains(r.stderr, "outside of the directory"), r)
	}
	assert.Check(t, is.Equal(l.readFile("/srv/secret"), "secret of the host"))
}

// TestExport is `docker export`: a container's own files, whole or not at all.
func TestExport(t *testing.T) {
	t.Parallel()
	l := boot(t)
	big := func(l *lab) {
		l.docker("run", "--detach", "--name", "big", "--volume", "vol:/vol", "busybox", "sh", "-c",
			"echo volume > /vol/file; echo own > /own; dd if=/dev/urandom of=/blob bs=1M count=64 2>/dev/null; touch /ready; exec sleep 10000")
		l.eventually(time.Minute, "the container has written its files", func() bool { return l.hasFile("big", "/ready") })
	}
	l.clients("export", func(t *testing.T, l *lab) {
		big(l)
		file := filepath.Join(t.TempDir(), "export.tar")
		l.docker("export", "--output", file, "big")
		f, err := os.Open(file)
		assert.NilError(t, err)
		defer f.Close()
		names := map[string]int64{}
		for tr := tar.NewReader(f); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			assert.NilError(t, err)
			names[h.Name] = h.Size
		}
		assert.Check(t, is.Equal(names["own"], int64(4)))
		assert.Check(t, is.Equal(names["blob"], int64(64<<20)))
		_, dir := names["vol/"]
		_, inside := names["vol/file"]
		assert.Check(t, dir && !inside, "the contents of volumes are not exported")
		// It is a root file system.
		l.must("import", l.run(l.dockerCmd("import", file, "again"), nil))
		assert.Check(t, is.Equal(l.docker("run", "--rm", "again", "cat", "/own"), "own"))
		l.docker("rmi", "again")
	})

	big(l)
	// lrd goes while a client reads: the client is told, and the container does not notice.
	for name, cut := range map[string]func(){"restart": l.restart, "SIGKILL": l.kill9} {
		for _, args := range [][]string{{"export", "big"}, {"cp", "big:/blob", "-"}} {
			what := fmt.Sprintf("%s during docker %s", name, args[0])
			cmd := l.dockerCmd(args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			assert.NilError(t, err)
			assert.NilError(t, cmd.Start())
			_, err = io.ReadFull(out, make([]byte, 1<<20))
			assert.NilError(t, err, what)
			cut()
			n, err := io.Copy(io.Discard, out)
			assert.NilError(t, err)
			assert.Check(t, n < 63<<20, what+": it was all there before lrd went")
			assert.Check(t, cmd.Wait() != nil, what)
			assert.Check(t, is.Contains(stderr.String(), "EOF"), what)
		}
	}
	assert.Check(t, is.Equal(l.fileOf("big", "/own"), "own\n"))
	l.docker("stop", "--time", "0", "big")
	l.unmounted("big")

	// What a killed daemon was copying from a container that does not run is unmounted by the next one.
	cmd := l.dockerCmd("export", "big")
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 1<<20))
	assert.NilError(t, err)
	l.kill9()
	_, _ = io.Copy(io.Discard, out)
	assert.Check(t, cmd.Wait() != nil)
	l.unmounted("big")
}

// unmounted waits until nothing of a container is mounted, and nothing held. A client is done when it has read all, which is
// a moment before the daemon is.
func (l *lab) unmounted(name string) {
	l.t.Helper()
	id := l.inspect(name).ID
	l.eventually(time.Minute, "nothing of "+name+" is mounted", func() bool {
		return l.tryExec("sh", "-c", "grep "+id+" /proc/self/mountinfo; ls /run/lrd/holds").stdout == ""
	})
}

// fileOf is the content of a file of a container.
func (l *lab) fileOf(container, path string) string {
	l.t.Helper()
	out, _ := l.bytesOf(nil, "cp", container+":"+path, "-")
	tr := tar.NewReader(bytes.NewReader(out))
	_, err := tr.Next()
	assert.NilError(l.t, err)
	content, err := io.ReadAll(tr)
	assert.NilError(l.t, err)
	return string(content)
}

// hasFile says whether a container has a file.
func (l *lab) hasFile(container, path string) bool {
	l.t.Helper()
	return l.tryDocker("cp", container+":"+path, "-").code == 0
}
