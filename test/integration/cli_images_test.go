//go:build integration

package integration

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// small is an archive of an image of one file.
func small(tag, content string) []byte {
	var layer tarball
	layer.add(tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644}, []byte(content))
	return dockerArchive(tag, map[string]any{"Cmd": []string{"/file"}, "Labels": map[string]string{"made": "here"}}, layer.bytes())
}

func TestCLIImages(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("load", func(t *testing.T, l *lab) {
		r := l.must("load", l.run(l.dockerCmd("load"), small("example.org/small:1", "one")))
		assert.Equal(t, r.stdout, "Loaded image: example.org/small:1")
		file := filepath.Join(t.TempDir(), "image.tar")
		assert.NilError(t, os.WriteFile(file, small("small:2", "two"), 0o600))
		assert.Equal(t, l.docker("load", "--input", file), "Loaded image: small:2")
		names := strings.Fields(l.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "label=made=here"))
		slices.Sort(names) // both are equally old
		assert.DeepEqual(t, names, []string{"example.org/small:1", "small:2"})
		assert.Equal(t, l.docker("images", "--quiet", "--no-trunc", "small:2"), l.docker("inspect", "--format", "{{.Id}}", "small:2"))

		assert.Equal(t, l.docker("image", "inspect", "--format", "{{.Os}} {{.Config.Cmd}} {{index .Config.Labels `made`}}", "small:2"), "linux [/file] here")
		assert.Check(t, is.Contains(l.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "small:2"), "lrd integration tests"))
		id := l.docker("images", "--quiet", "small:2")
		l.docker("tag", "small:2", "other/name:tag")
		assert.Equal(t, l.docker("images", "--quiet", "other/name"), id)
		// Of two names, removing one leaves the image.
		assert.Equal(t, l.docker("rmi", "small:2"), "Untagged: small:2")
		r = l.tryDocker("rmi", "other/name:tag")
		assert.Check(t, is.Contains(r.stdout, "Untagged: other/name:tag\nDeleted: sha256:"))
		assert.Check(t, is.Contains(l.docker("rmi", "example.org/small:1"), "Deleted: sha256:"))
		l.refused(1, []string{"No such image: small:2"}, "rmi", "small:2")
		l.refused(1, []string{"o such image: small:2"}, "image", "inspect", "small:2")
		l.refused(1, []string{"No such image: small:2"}, "tag", "small:2", "x")
	})

	l.clients("bad archives", func(t *testing.T, l *lab) {
		before := l.docker("images", "--all", "--quiet")
		good := small("bad:1", "content")
		for name, archive := range map[string][]byte{
			"truncated": good[:len(good)/2],
			"no tar":    []byte("this is no archive, it is a sentence" + strings.Repeat(".", 2000)),
			"nothing":   {},
		} {
			r := l.run(l.dockerCmd("load"), archive)
			assert.Check(t, r.code == 1 && r.stderr != "", "%s: %s", name, r)
		}
		assert.Equal(t, l.docker("images", "--all", "--quiet"), before)
	})

	l.clients("import", func(t *testing.T, l *lab) {
		var root tarball
		root.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/motd", Mode: 0o644}, []byte("hello"))
		r := l.must("import", l.run(l.dockerCmd("import", "--message", "by hand", "--change", "CMD [\"cat\", \"/etc/motd\"]", "--change", "ENV A=b", "-", "imported:v1"), root.bytes()))
		assert.Check(t, is.Regexp("^sha256:[0-9a-f]{64}$", r.stdout))
		assert.Equal(t, l.docker("inspect", "--format", "{{.Config.Cmd}} {{.Config.Env}}", "imported:v1"), "[cat /etc/motd] [A=b]")
		assert.Check(t, is.Contains(l.docker("history", "--format", "{{.Comment}}", "imported:v1"), "by hand"))
		l.docker("rmi", "imported:v1")
	})

	l.clients("in use", func(t *testing.T, l *lab) {
		l.load(small("used:1", "x"))
		l.docker("create", "--name", "holder", "used:1")
		l.refused(1, []string{"conflict: unable to remove repository reference", "used:1", "holder"}, "rmi", "used:1")
		l.docker("rmi", "--force", "used:1")
		assert.Equal(t, l.docker("ps", "--all", "--format", "{{.Names}}"), "holder")
		l.docker("rm", "holder")

		l.tick("runs")
		l.refused(1, []string{"conflict", "runs", "busybox"}, "rmi", "busybox")
		id := l.docker("images", "--quiet", "busybox")
		r := l.tryDocker("rmi", "--force", id)
		assert.Check(t, r.code == 1 && strings.Contains(r.stderr, "running container"), "an image that runs is not even removed by force: %s", r)
		l.status("runs", "running")
	})

	l.clients("unknown image", func(t *testing.T, l *lab) {
		// The lab has no way to a registry.
		r := l.tryDocker("run", "--rm", "no-such-image", "true")
		assert.Check(t, r.code == 125 && strings.Contains(r.stderr, "Unable to find image 'no-such-image:latest' locally"), "%s", r)
		l.refused(125, []string{"No such image: no-such-image:latest"}, "run", "--rm", "--pull", "never", "no-such-image", "true")
		r = l.tryDocker("pull", "no-such-image")
		assert.Check(t, r.code == 1 && strings.Contains(r.stderr, "no-such-image"), "%s", r)
	})

	l.newest("filters", func(t *testing.T, l *lab) {
		for i := range 3 {
			l.load(small(fmt.Sprintf("many/i%d:v", i), fmt.Sprint("f", i)))
		}
		assert.Equal(t, len(strings.Fields(l.docker("images", "--quiet", "--filter", "reference=many/*"))), 3)
		assert.Equal(t, l.docker("images", "--format", "{{.Repository}}", "many/i1"), "many/i1")
		l.docker("tag", "many/i2:v", "many/i1:v") // takes the name, and leaves an image without one
		dangling := l.docker("images", "--quiet", "--filter", "dangling=true")
		assert.Equal(t, len(strings.Fields(dangling)), 1)
		assert.Check(t, is.Contains(l.docker("images", "--filter", "dangling=true"), "<none>"))
		l.docker("rmi", dangling)
		assert.Check(t, is.Contains(l.docker("images", "--format", "{{.Size}}", "busybox"), "MB"))
	})
}
