package volumes

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "volumes"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	assert.NilError(t, err)
	return s
}

func create(t *testing.T, s *Store, r volume.CreateRequest) volume.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), r)
	assert.NilError(t, err)
	return v
}

func TestCreateAndGet(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "web_data", Labels: map[string]string{"k": "v"}})
	assert.Equal(t, v.Name, "web_data")
	assert.Equal(t, v.Driver, "local")
	assert.Equal(t, v.Scope, "local")
	assert.DeepEqual(t, v.Labels, map[string]string{"k": "v"})
	assert.Equal(t, v.Mountpoint, filepath.Join(s.root, "web_data", "_data"))
	made, err := time.Parse(time.RFC3339, v.CreatedAt)
	assert.NilError(t, err)
	assert.Assert(t, time.Since(made) < time.Minute)
	info, err := os.Stat(v.Mountpoint)
	assert.NilError(t, err)
	assert.Equal(t, info.Mode().Perm(), os.FileMode(0o755))

	again := create(t, s, volume.CreateRequest{Name: "web_data", Labels: map[string]string{"other": "x"}})
	assert.DeepEqual(t, again, v) // the one that is there

	reopened, err := Open(s.root, s.log)
	assert.NilError(t, err)
	got, err := reopened.Get(t.Context(), "web_data")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, v)
	path, err := reopened.Mount(t.Context(), "web_data", "holder")
	assert.NilError(t, err)
	assert.Equal(t, path, v.Mountpoint)
}

func TestCreateAnonymous(t *testing.T) {
	s := open(t)
	a, b := create(t, s, volume.CreateRequest{}), create(t, s, volume.CreateRequest{})
	assert.Assert(t, a.Name != b.Name)
	assert.Equal(t, len(a.Name), 64)
	assert.DeepEqual(t, a.Labels, map[string]string{AnonymousLabel: ""})
}

func TestCreateRefuses(t *testing.T) {
	s := open(t)
	for _, tc := range []struct {
		r    volume.CreateRequest
		want string
		is   func(error) bool
	}{
		{volume.CreateRequest{Name: "x"}, "too short", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: ".."}, "invalid characters", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "../x"}, "use absolute path", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: ".new-x"}, "invalid characters", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "a/b"}, "invalid characters", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ab\n"}, "invalid characters", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: strings.Repeat("a", 256)}, "too long", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", Driver: "nfs"}, `volume driver "nfs" is not available`, errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "tmpfs"}}, `missing required option: "device"`, errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"device": "tmpfs"}}, `missing required option: "type"`, errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "colour": "red"}}, `invalid option: "colour"`, errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"size": "1g"}}, "no quota support", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "cifs", "device": "//host:445/share"}}, "port not allowed", errdefs.IsInvalidArgument},
		{volume.CreateRequest{Name: "ok", ClusterVolumeSpec: &volume.ClusterVolumeSpec{}}, "swarm", errdefs.IsInvalidArgument},
	} {
		_, err := s.Create(t.Context(), tc.r)
		assert.ErrorContains(t, err, tc.want)
		assert.Assert(t, tc.is(err), "%v", err)
	}
	entries, err := os.ReadDir(s.root)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 0)
}

func TestCreateTogether(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := s.Create(t.Context(), volume.CreateRequest{Name: "same"})
			assert.Check(t, err)
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(s.root)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 1)
}

func TestGetOfNothing(t *testing.T) {
	s := open(t)
	for _, name := range []string{"nothing", "..", "a/../../etc", ""} {
		_, err := s.Get(t.Context(), name)
		assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
		assert.Error(t, err, "get "+name+": no such volume")
		_, err = s.Mount(t.Context(), name, "holder")
		assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	}
}

func TestPathIsNoLink(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	assert.NilError(t, os.Remove(v.Mountpoint))
	assert.NilError(t, os.Symlink("/etc", v.Mountpoint))
	_, err := s.Mount(t.Context(), "vol", "holder")
	assert.Assert(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.Assert(t, errdefs.IsFailedPrecondition(s.CopyUp(t.Context(), "vol", t.TempDir(), "/")))
}

func TestOtherSchema(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	raw, err := json.Marshal(metadata{Schema: 99, Name: "vol"})
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(s.root, "vol", metaFile), raw, 0o600))
	_, err = s.Get(t.Context(), "vol")
	assert.Assert(t, errdefs.IsFailedPrecondition(err))
	assert.ErrorContains(t, err, "schema 99")
	list, err := s.List(t.Context(), nil, nil)
	assert.NilError(t, err)
	assert.Equal(t, len(list.Volumes), 0)
	assert.Equal(t, len(list.Warnings), 1)
	assert.ErrorContains(t, s.Remove(t.Context(), "vol", false, nil), "schema 99")
	_, err = os.Stat(v.Mountpoint) // nothing is lost
	assert.NilError(t, err)
	assert.NilError(t, s.Remove(t.Context(), "vol", true, nil))
}

func TestList(t *testing.T) {
	s := open(t)
	create(t, s, volume.CreateRequest{Name: "web", Labels: map[string]string{"k": "v"}})
	create(t, s, volume.CreateRequest{Name: "db", Labels: map[string]string{"k": "w"}})
	create(t, s, volume.CreateRequest{Name: "web2"})
	inUse := func(name string) bool { return name == "web" }
	for _, tc := range []struct {
		f    Filters
		want []string
	}{
		{nil, []string{"db", "web", "web2"}},
		{Filters{"name": {"web": true}}, []string{"web", "web2"}},
		{Filters{"name": {"web": true, "db": true}}, []string{"db", "web", "web2"}},
		{Filters{"name": {"web": false}}, []string{"db", "web", "web2"}},
		{Filters{"label": {"k": true}}, []string{"db", "web"}},
		{Filters{"label": {"k=v": true}}, []string{"web"}},
		{Filters{"label": {"k=v": true, "k=w": true}}, nil},
		{Filters{"label!": {"k": true}}, []string{"web2"}},
		{Filters{"dangling": {"true": true}}, []string{"db", "web2"}},
		{Filters{"dangling": {"0": true}}, []string{"web"}},
		{Filters{"driver": {"local": true}}, []string{"db", "web", "web2"}},
		{Filters{"driver": {"nfs": true}}, nil},
	} {
		got, err := s.List(t.Context(), tc.f, inUse)
		assert.NilError(t, err)
		var names []string
		for _, v := range got.Volumes {
			names = append(names, v.Name)
		}
		assert.DeepEqual(t, names, tc.want)
	}
	for _, f := range []Filters{{"color": {"red": true}}, {"dangling": {"maybe": true}}, {"dangling": {"true": true, "false": true}}} {
		_, err := s.List(t.Context(), f, inUse)
		assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	}
}

func TestRemove(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "web"})
	assert.NilError(t, os.WriteFile(filepath.Join(v.Mountpoint, "x"), []byte("x"), 0o600))
	users := func(string) []string { return []string{"a", "b"} }
	for _, force := range []bool{false, true} {
		err := s.Remove(t.Context(), "web", force, users)
		assert.Error(t, err, "remove web: volume is in use - [a, b]")
		assert.Assert(t, errdefs.IsConflict(err))
	}
	assert.NilError(t, s.Remove(t.Context(), "web", false, nil))
	entries, err := os.ReadDir(s.root)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 0)
	assert.Assert(t, errdefs.IsNotFound(s.Remove(t.Context(), "web", false, nil)))
	assert.NilError(t, s.Remove(t.Context(), "web", true, nil))
}

func TestOpenSweeps(t *testing.T) {
	s := open(t)
	create(t, s, volume.CreateRequest{Name: "kept"})
	for _, d := range []string{".new-1/_data", ".gone-2/_data"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(s.root, d), 0o700))
	}
	_, err := Open(s.root, s.log)
	assert.NilError(t, err)
	entries, err := os.ReadDir(s.root)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 1)
	_, err = Open("relative", s.log)
	assert.Assert(t, errdefs.IsInvalidArgument(err))
}

// imageTree makes a root filesystem with a bit of everything below /data.
func imageTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	data := filepath.Join(root, "data")
	assert.NilError(t, os.MkdirAll(filepath.Join(data, "d/e"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(data, "file"), []byte("content"), 0o640))
	assert.NilError(t, os.WriteFile(filepath.Join(data, "d/suid"), []byte("x"), 0o755))
	assert.NilError(t, os.Chmod(filepath.Join(data, "d/suid"), 0o755|os.ModeSetuid))
	assert.NilError(t, os.Link(filepath.Join(data, "file"), filepath.Join(data, "d/hard")))
	assert.NilError(t, os.Symlink("/etc/passwd", filepath.Join(data, "abs")))
	assert.NilError(t, os.Symlink("../../../../etc", filepath.Join(data, "d/up")))
	assert.NilError(t, unix.Mkfifo(filepath.Join(data, "fifo"), 0o600))
	assert.NilError(t, os.Chmod(filepath.Join(data, "d/e"), 0o700|os.ModeSticky))
	old := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, f := range []string{"file", "d/e", "d", ""} {
		assert.NilError(t, os.Chtimes(filepath.Join(data, f), old, old))
	}
	assert.NilError(t, os.Chmod(data, 0o711))
	return root
}

func TestCopyUp(t *testing.T) {
	s := open(t)
	root := imageTree(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	xattr := unix.Lsetxattr(filepath.Join(root, "data/file"), "user.lrd", []byte("yes"), 0)
	assert.NilError(t, s.CopyUp(t.Context(), "vol", root, "/data"))

	in := func(name string) string { return filepath.Join(v.Mountpoint, name) }
	for _, name := range []string{"", "file", "d", "d/suid", "d/e", "abs", "d/up", "fifo"} {
		want, err := os.Lstat(filepath.Join(root, "data", name))
		assert.NilError(t, err)
		got, err := os.Lstat(in(name))
		assert.NilError(t, err)
		assert.Equal(t, got.Mode(), want.Mode(), name)
		assert.Assert(t, got.ModTime().Equal(want.ModTime()), "%s: %s, not %s", name, got.ModTime(), want.ModTime())
	}
	content, err := os.ReadFile(in("file"))
	assert.NilError(t, err)
	assert.Equal(t, string(content), "content")
	target, err := os.Readlink(in("d/up"))
	assert.NilError(t, err)
	assert.Equal(t, target, "../../../../etc")
	a, err := os.Stat(in("file"))
	assert.NilError(t, err)
	b, err := os.Stat(in("d/hard"))
	assert.NilError(t, err)
	assert.Assert(t, os.SameFile(a, b))
	if xattr == nil {
		buf := make([]byte, 10)
		n, err := unix.Lgetxattr(in("file"), "user.lrd", buf)
		assert.NilError(t, err)
		assert.Equal(t, string(buf[:n]), "yes")
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "vol"))
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 2) // _data, volume.json

	// Not again: it has something in it.
	assert.NilError(t, os.Remove(in("file")))
	assert.NilError(t, s.CopyUp(t.Context(), "vol", root, "/data"))
	_, err = os.Stat(in("file"))
	assert.Assert(t, os.IsNotExist(err))
}

func TestCopyUpOwnersAndDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: other owners and devices need root")
	}
	s := open(t)
	root := imageTree(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	assert.NilError(t, os.Lchown(filepath.Join(root, "data/abs"), 5, 6))
	assert.NilError(t, os.Lchown(filepath.Join(root, "data/file"), 7, 8))
	assert.NilError(t, os.Lchown(filepath.Join(root, "data"), 9, 10))
	assert.NilError(t, unix.Mknod(filepath.Join(root, "data/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	assert.NilError(t, s.CopyUp(t.Context(), "vol", root, "/data"))
	for name, want := range map[string][2]uint32{"abs": {5, 6}, "file": {7, 8}, "": {9, 10}, "null": {0, 0}} {
		var st unix.Stat_t
		assert.NilError(t, unix.Lstat(filepath.Join(v.Mountpoint, name), &st))
		assert.Equal(t, [2]uint32{st.Uid, st.Gid}, want, name)
		if name == "null" {
			assert.Equal(t, st.Rdev, unix.Mkdev(1, 3))
		}
	}
}

// What an image's symbolic links say stays within the image.
func TestCopyUpStaysInside(t *testing.T) {
	s := open(t)
	root := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "etc/inside"), nil, 0o600))
	for i, link := range []string{"/etc", "../../../../../../etc"} {
		name := "vol" + string(rune('a'+i))
		v := create(t, s, volume.CreateRequest{Name: name})
		assert.NilError(t, os.Symlink(link, filepath.Join(root, name)))
		assert.NilError(t, s.CopyUp(t.Context(), name, root, "/"+name))
		entries, err := os.ReadDir(v.Mountpoint)
		assert.NilError(t, err)
		assert.Equal(t, len(entries), 1)
		assert.Equal(t, entries[0].Name(), "inside")
	}
}

func TestCopyUpOfNothing(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	root := imageTree(t)
	for _, dir := range []string{"/nothing", "/data/file", "/data/file/x"} {
		err := s.CopyUp(t.Context(), "vol", root, dir)
		if err != nil { // below a file
			assert.Assert(t, is.Contains(err.Error(), "not a directory"))
		}
		entries, err := os.ReadDir(v.Mountpoint)
		assert.NilError(t, err)
		assert.Equal(t, len(entries), 0)
	}
	assert.Assert(t, errdefs.IsNotFound(s.CopyUp(t.Context(), "other", root, "/data")))
}

func TestCopyUpEndsWithItsContext(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	root := imageTree(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, s.CopyUp(ctx, "vol", root, "/data"), context.Canceled)
	entries, err := os.ReadDir(filepath.Dir(v.Mountpoint))
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 2)
}

// A crash in the middle: half a copy is begun again, a whole one is finished.
func TestCopyUpAfterACrash(t *testing.T) {
	s := open(t)
	root := imageTree(t)
	v := create(t, s, volume.CreateRequest{Name: "part"})
	assert.NilError(t, os.MkdirAll(filepath.Join(s.root, "part", copyPart, "junk"), 0o700))
	assert.NilError(t, s.CopyUp(t.Context(), "part", root, "/data"))
	_, err := os.Stat(filepath.Join(v.Mountpoint, "file"))
	assert.NilError(t, err)
	_, err = os.Stat(filepath.Join(v.Mountpoint, "junk"))
	assert.Assert(t, os.IsNotExist(err))

	v = create(t, s, volume.CreateRequest{Name: "whole"})
	base, err := os.OpenRoot(filepath.Join(s.root, "whole"))
	assert.NilError(t, err)
	defer base.Close()
	assert.NilError(t, copyInto(t.Context(), filepath.Join(root, "data"), base, copyWhole))
	assert.NilError(t, os.Rename(filepath.Join(s.root, "whole", copyWhole, "file"), filepath.Join(v.Mountpoint, "file")))
	assert.NilError(t, s.CopyUp(t.Context(), "whole", root, "/data"))
	for _, name := range []string{"file", "d/suid", "fifo"} {
		_, err = os.Lstat(filepath.Join(v.Mountpoint, name))
		assert.NilError(t, err)
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "whole"))
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 2)
}

func FuzzCheckName(f *testing.F) {
	f.Add("web")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		if filepath.Base(name) != name || strings.HasPrefix(name, ".") {
			t.Errorf("%q is no file name, or a dotted one", name)
		}
	})
}
