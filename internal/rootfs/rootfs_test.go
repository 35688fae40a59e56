package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// needRoot skips a test where the process may not do what the daemon may.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners, devices and mount namespaces")
	}
}

// outside makes a directory with a container's root in it and a secret beside, which nothing may reach.
func outside(t *testing.T) (root, secret string) {
	t.Helper()
	dir := t.TempDir()
	root, secret = filepath.Join(dir, "root"), filepath.Join(dir, "secret")
	for _, d := range []string{root, filepath.Join(root, "dir"), filepath.Join(dir, "victim")} {
		assert.NilError(t, os.Mkdir(d, 0o755))
	}
	write(t, secret, "secret")
	return root, secret
}

func write(t *testing.T, path, content string) {
	t.Helper()
	assert.NilError(t, os.WriteFile(path, []byte(content), 0o644))
}

func tree(t *testing.T, dir string) *Tree {
	t.Helper()
	root, err := openRoot(dir)
	assert.NilError(t, err)
	tr := &Tree{root: root}
	t.Cleanup(func() { assert.Check(t, tr.Close()) })
	return tr
}

// archiveOf is the archive of a path.
func archiveOf(t *testing.T, tr *Tree, path string) []byte {
	t.Helper()
	s, _, err := tr.Find(path)
	assert.NilError(t, err)
	defer s.Close()
	var buf bytes.Buffer
	assert.NilError(t, s.Write(t.Context(), &buf, func() error { return nil }))
	return buf.Bytes()
}

// members lists an archive as "name", "name -> link", "name = content".
func members(t *testing.T, archive []byte) []string {
	t.Helper()
	var list []string
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		assert.NilError(t, err)
		content, err := io.ReadAll(tr)
		assert.NilError(t, err)
		line := h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(content) > 0 {
			line += " = " + string(content)
		}
		list = append(list, line)
	}
}

// pack makes an archive of headers; Linkname stands for the content of a regular file.
func pack(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		assert.NilError(t, tw.WriteHeader(&h))
		_, err := io.WriteString(tw, content)
		assert.NilError(t, err)
	}
	assert.NilError(t, tw.Close())
	return buf.Bytes()
}

func (t *Tree) extract(archive []byte, dir string, o ExtractOptions) error {
	return t.Extract(context.Background(), bytes.NewReader(archive), dir, o)
}

func TestStat(t *testing.T) {
	root, _ := outside(t)
	write(t, root+"/dir/file", "12345")
	for link, to := range map[string]string{"abs": "/dir/file", "up": "../../../../dir", "dangling": "/no/where", "loop": "loop"} {
		assert.NilError(t, os.Symlink(to, filepath.Join(root, link)))
	}
	tr := tree(t, root)
	for path, want := range map[string]struct {
		name, link string
		mode       fs.FileMode
	}{
		"dir/file":  {"file", "", 0o644},
		"/dir/":     {"dir", "", fs.ModeDir | 0o755},
		"/":         {"/", "", fs.ModeDir | 0o755},
		"abs":       {"abs", "/dir/file", fs.ModeSymlink | 0o777},
		"up":        {"up", "/dir", fs.ModeSymlink | 0o777},
		"up/":       {"up", "", fs.ModeDir | 0o755},
		"up/.":      {".", "", fs.ModeDir | 0o755},
		"dangling":  {"dangling", "/no/where", fs.ModeSymlink | 0o777},
		"../../dir": {"dir", "", fs.ModeDir | 0o755},
	} {
		got, err := tr.Stat(path)
		assert.NilError(t, err, path)
		assert.Check(t, is.Equal(got.Name, want.name), path)
		assert.Check(t, is.Equal(got.LinkTarget, want.link), path)
		assert.Check(t, is.Equal(got.Mode, want.mode), path)
	}
	for path, kind := range map[string]error{"no": errdefs.ErrNotFound, "dangling/": errdefs.ErrNotFound, "dir/file/": errdefs.ErrInvalidArgument, "loop/x": errdefs.ErrInvalidArgument} {
		_, err := tr.Stat(path)
		assert.Check(t, is.ErrorIs(err, kind), path)
	}
}

// Links that lead out of the root, by "..", absolutely or through each other, lead to the same names inside of it.
func TestLinksStayInside(t *testing.T) {
	root, secret := outside(t)
	write(t, root+"/secret", "inside")
	for link, to := range map[string]string{"abs": secret, "up": "../secret", "dirup": "..", "chain": "dirup/../secret"} {
		assert.NilError(t, os.Symlink(to, filepath.Join(root, link)))
	}
	tr := tree(t, root)
	_, err := tr.Stat("abs/")
	assert.Check(t, is.ErrorIs(err, errdefs.ErrNotFound))
	assert.Check(t, is.DeepEqual(members(t, archiveOf(t, tr, "dirup/secret")), []string{"secret = inside"}))
	assert.Check(t, is.DeepEqual(members(t, archiveOf(t, tr, "up")), []string{"up -> ../secret"}))

	// Into the root by way of a link, and below a link that was unpacked just before.
	hostile := pack(t,
		tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(secret) + "/victim"},
		tar.Header{Name: "rel", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../../" + filepath.Dir(secret) + "/victim"},
		tar.Header{Name: "out/file", Typeflag: tar.TypeReg, Linkname: "x"},
		tar.Header{Name: "rel/file2", Typeflag: tar.TypeReg, Linkname: "x"},
	)
	// The links dangle inside, so there is no directory to put the file into.
	assert.Check(t, tr.extract(hostile, "/dir", ExtractOptions{}) != nil)
	entries, err := os.ReadDir(filepath.Dir(secret) + "/victim")
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 0))
}

func TestNamesThatLeadOut(t *testing.T) {
	root, secret := outside(t)
	tr := tree(t, root)
	for _, h := range []tar.Header{
		{Name: "../secret", Typeflag: tar.TypeReg, Linkname: "overwritten"},
		{Name: "x/../../secret", Typeflag: tar.TypeReg, Linkname: "overwritten"},
		{Name: "stolen", Typeflag: tar.TypeLink, Linkname: "../secret"},
		{Name: "stolen", Typeflag: tar.TypeLink, Linkname: "../../secret"},
	} {
		err := tr.extract(pack(t, h), "/", ExtractOptions{})
		assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument), h.Name)
	}
	assert.NilError(t, tr.extract(pack(t, tar.Header{Name: "/abs", Typeflag: tar.TypeReg, Linkname: "x"}), "/dir", ExtractOptions{}))
	_, err := os.Lstat(root + "/dir/abs")
	assert.NilError(t, err)
	// A hard link to what a link of the container points to is one to the link.
	assert.NilError(t, os.Symlink(secret, root+"/link"))
	assert.NilError(t, tr.extract(pack(t, tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "link"}), "/", ExtractOptions{}))
	info, err := os.Lstat(root + "/hard")
	assert.NilError(t, err)
	assert.Check(t, info.Mode()&fs.ModeSymlink != 0)
	data, err := os.ReadFile(secret)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "secret")
}

func TestRoundTrip(t *testing.T) {
	needRoot(t)
	root, _ := outside(t)
	src := root + "/dir/src"
	assert.NilError(t, os.MkdirAll(src+"/sub", 0o750))
	write(t, src+"/a", "aa")
	assert.NilError(t, os.Chmod(src+"/a", 0o755|fs.ModeSetuid))
	assert.NilError(t, os.Chown(src+"/a", 12, 34))
	assert.NilError(t, os.Chmod(src+"/a", 0o755|fs.ModeSetuid))
	assert.NilError(t, os.Link(src+"/a", src+"/sub/b"))
	assert.NilError(t, os.Symlink("/etc/passwd", src+"/link"))
	assert.NilError(t, unix.Mkfifo(src+"/fifo", 0o600))
	assert.NilError(t, unix.Mknod(src+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	assert.NilError(t, unix.Setxattr(src+"/a", capabilityXattr, []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	long := strings.Repeat("n", 200)
	write(t, src+"/"+long, "long")
	then := time.Unix(1_000_000_000, 0)
	assert.NilError(t, os.Chtimes(src+"/a", then, then))
	assert.NilError(t, os.Chtimes(src+"/sub", then, then))
	tr := tree(t, root)
	archive := archiveOf(t, tr, "/dir/src")
	assert.Check(t, is.DeepEqual(members(t, archive), []string{
		"src/", "src/a = aa", "src/fifo", "src/link -> /etc/passwd", "src/" + long + " = long", "src/null", "src/sub/", "src/sub/b -> src/a",
	}))
	assert.NilError(t, os.Mkdir(root+"/to", 0o755))
	assert.NilError(t, tr.extract(archive, "/to", ExtractOptions{}))
	again, err := exec.Command("sh", "-ec", `cd "$1"; find . -printf '%p %y %m %U:%G %s %n %l %Ts\n' | sort`, "sh", root+"/to/src").Output()
	assert.NilError(t, err)
	want, err := exec.Command("sh", "-ec", `cd "$1"; find . -printf '%p %y %m %U:%G %s %n %l %Ts\n' | sort`, "sh", src).Output()
	assert.NilError(t, err)
	assert.Equal(t, string(again), string(want))
	f, err := os.Open(root + "/to/src/a")
	assert.NilError(t, err)
	defer f.Close()
	capability, err := getXattr(f, capabilityXattr)
	assert.NilError(t, err)
	assert.Check(t, is.Len(capability, 20))

	assert.NilError(t, tr.extract(archive, "/to", ExtractOptions{Owner: &Owner{77, 88}}))
	info, err := os.Lstat(root + "/to/src/link")
	assert.NilError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	assert.Check(t, st.Uid == 77 && st.Gid == 88)
}

func TestKinds(t *testing.T) {
	root, _ := outside(t)
	tr := tree(t, root)
	write(t, root+"/file", "old")
	write(t, root+"/dir/kept", "kept")
	asFile := pack(t, tar.Header{Name: "dir", Typeflag: tar.TypeReg, Linkname: "new"})
	asDir := pack(t, tar.Header{Name: "file/", Typeflag: tar.TypeDir})
	assert.Check(t, is.ErrorContains(tr.extract(asFile, "/", ExtractOptions{KeepKind: true}), `cannot overwrite directory "/dir" with non-directory`))
	assert.Check(t, is.ErrorContains(tr.extract(asDir, "/", ExtractOptions{KeepKind: true}), `cannot overwrite non-directory "/file" with directory`))
	assert.NilError(t, tr.extract(pack(t, tar.Header{Name: "dir/", Typeflag: tar.TypeDir}), "/", ExtractOptions{}))
	_, err := os.Lstat(root + "/dir/kept")
	assert.NilError(t, err)
	assert.NilError(t, tr.extract(asFile, "/", ExtractOptions{}))
	assert.NilError(t, tr.extract(asDir, "/", ExtractOptions{}))
	assert.Check(t, is.ErrorContains(tr.extract(asDir, "/dir", ExtractOptions{}), "extraction point is not a directory"))
	assert.Check(t, is.ErrorIs(tr.extract(asDir, "/no", ExtractOptions{}), errdefs.ErrNotFound))
	assert.Check(t, is.ErrorIs(tr.extract([]byte(strings.Repeat("garbage ", 200)), "/", ExtractOptions{}), errdefs.ErrInvalidArgument))
	assert.Check(t, is.ErrorIs(tr.extract(asFile[:514], "/", ExtractOptions{}), errdefs.ErrInvalidArgument))
}

// A container that swaps a directory for a link to the host's, all the time, gets its own files copied (CVE-2018-15664).
// TestDeeperThanAPath: a directory that a container has made deeper than names can be long is neither read nor removed.
func TestDeeperThanAPath(t *testing.T) {
	root, _ := outside(t)
	fd, err := unix.Open(filepath.Join(root, "dir"), unix.O_PATH|unix.O_DIRECTORY, 0)
	assert.NilError(t, err)
	name := strings.Repeat("d", 250)
	for range maxName/250 + 2 {
		assert.NilError(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		assert.NilError(t, err)
		assert.NilError(t, unix.Close(fd))
		fd = next
	}
	assert.NilError(t, unix.Close(fd))
	tr := tree(t, root)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	assert.NilError(t, tw.WriteHeader(&tar.Header{Name: "dir", Typeflag: tar.TypeReg, Mode: 0o644}))
	assert.NilError(t, tw.Close())
	err = tr.Extract(t.Context(), &archive, "/", ExtractOptions{})
	assert.Check(t, errdefs.IsInvalidArgument(err) && strings.HasPrefix(err.Error(), "cannot remove /dir/ddd"), "%v", err)
}

func TestSwap(t *testing.T) {
	root, secret := outside(t)
	host := filepath.Dir(secret)
	assert.NilError(t, os.MkdirAll(root+"/swap/victim", 0o755))
	write(t, root+"/swap/secret", "inside")
	assert.NilError(t, os.Symlink(host, root+"/link"))
	tr := tree(t, root)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, root+"/swap", unix.AT_FDCWD, root+"/link", unix.RENAME_EXCHANGE)
			}
		}
	}()
	in := pack(t, tar.Header{Name: "victim/file", Typeflag: tar.TypeReg, Linkname: "x"}, tar.Header{Name: "deep/er/file", Typeflag: tar.TypeReg, Linkname: "x"})
	read := 0
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); {
		_ = tr.extract(in, "/swap", ExtractOptions{})
		for _, path := range []string{"/swap/secret", "/swap", "/swap/"} {
			s, _, err := tr.Find(path)
			if err != nil {
				continue
			}
			var buf bytes.Buffer
			err = s.Write(t.Context(), &buf, func() error { return nil })
			assert.NilError(t, s.Close())
			if err == nil {
				read++
				for _, m := range members(t, buf.Bytes()) {
					assert.Assert(t, !strings.HasSuffix(m, "= secret"), m)
				}
			}
		}
	}
	close(stop)
	<-done
	assert.Check(t, read > 0)
	entries, err := os.ReadDir(host + "/victim")
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 0))
	_, err = os.Lstat(host + "/deep")
	assert.Check(t, is.ErrorIs(err, fs.ErrNotExist))
}

// A file that shrinks, or a client that is told that not all was there, leaves no archive that looks whole.
func TestNeverSilentlyShort(t *testing.T) {
	root, _ := outside(t)
	write(t, root+"/dir/file", strings.Repeat("x", 1<<20))
	tr := tree(t, root)
	s, _, err := tr.Find("/dir")
	assert.NilError(t, err)
	defer s.Close()
	var buf bytes.Buffer
	gone := errors.New("gone")
	assert.Check(t, is.ErrorIs(s.Write(t.Context(), &buf, func() error { return gone }), gone))
	assert.Check(t, !bytes.HasSuffix(buf.Bytes(), make([]byte, 1024))) // the end marker

	s, _, err = tr.Find("/dir/file")
	assert.NilError(t, err)
	defer s.Close()
	shrink := writerFunc(func(p []byte) (int, error) {
		return len(p), os.Truncate(root+"/dir/file", 10)
	})
	assert.Check(t, is.ErrorContains(s.Write(t.Context(), shrink, func() error { return nil }), "shorter while it was read"))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAssemble(t *testing.T) {
	needRoot(t)
	root, _ := outside(t)
	vol, ro := t.TempDir(), t.TempDir()
	write(t, vol+"/in-volume", "v")
	write(t, ro+"/in-ro", "r")
	write(t, ro+"/hosts", "h")
	assert.NilError(t, os.Symlink("/dir", root+"/link"))
	before, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	tr, err := Assemble(root, false, []Mount{
		{Source: vol, Target: "/link/new/vol"}, {Source: ro, Target: "/ro", ReadOnly: true}, {Source: ro + "/hosts", Target: "/etc/hosts"},
	})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(members(t, archiveOf(t, tr, "/dir/new/vol")), []string{"vol/", "vol/in-volume = v"}))
	assert.Check(t, is.DeepEqual(members(t, archiveOf(t, tr, "/etc")), []string{"etc/", "etc/hosts = h"}))
	file := pack(t, tar.Header{Name: "file", Typeflag: tar.TypeReg, Linkname: "x"})
	assert.NilError(t, tr.extract(file, "/dir/new/vol", ExtractOptions{}))
	_, err = os.Lstat(vol + "/file")
	assert.NilError(t, err)
	assert.Check(t, is.Error(tr.extract(file, "/ro", ExtractOptions{Mounted: func(p string) bool { return p == "/ro" }}), "mounted volume is marked read-only"))
	after, err := os.ReadFile("/proc/self/mountinfo")
	assert.NilError(t, err)
	assert.Equal(t, string(after), string(before)) // nothing of it on the host
	assert.NilError(t, tr.Close())

	tr, err = Assemble(root, true, []Mount{{Source: vol, Target: "/vol"}})
	assert.NilError(t, err)
	defer tr.Close()
	assert.Check(t, is.Error(tr.extract(file, "/dir", ExtractOptions{}), "container rootfs is marked read-only"))
	assert.NilError(t, tr.extract(file, "/vol", ExtractOptions{}))
	_, err = Assemble(root, false, []Mount{{Source: "/no/such", Target: "/vol"}})
	assert.Check(t, is.ErrorIs(err, fs.ErrNotExist))
}

func TestOpenProcess(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs none "$1" && echo in > "$1/file" && echo ready && sleep 100`, "sh", t.TempDir())
	dir := cmd.Args[len(cmd.Args)-1]
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 6))
	assert.NilError(t, err)
	groups, err := os.ReadFile("/proc/self/cgroup")
	assert.NilError(t, err)
	unit := filepath.Base(strings.TrimSpace(strings.SplitN(string(groups), "\n", 2)[0]))
	if unit == "/" || !inUnit(string(groups), unit) {
		unit = strings.SplitN(strings.TrimSpace(strings.SplitN(string(groups), "\n", 2)[0]), "/", 2)[0] // no group below the root here
	}
	_, err = OpenProcess(cmd.Process.Pid, "lrd-other.service")
	assert.Check(t, is.ErrorIs(err, errdefs.ErrUnavailable))
	tr, err := OpenProcess(cmd.Process.Pid, unit)
	assert.NilError(t, err)
	defer tr.Close()
	assert.NilError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	// What is mounted there stays for as long as the tree.
	assert.Check(t, is.DeepEqual(members(t, archiveOf(t, tr, dir+"/file")), []string{"file = in\n"}))
	_, err = OpenProcess(cmd.Process.Pid, unit)
	assert.Check(t, is.ErrorIs(err, errdefs.ErrUnavailable))
	// The kernel's own file systems are no files to copy.
	_, _, err = tr.Find("/proc/version")
	assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument))
}
