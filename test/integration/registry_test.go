//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The registries of a lab: one for everybody, which is a mirror of docker.io too, and one that wants a login.
const (
	openRegistry   = "127.0.0.1:5000"
	closedRegistry = "127.0.0.1:5001"
)

// registries starts both, as Debian packages them.
func (l *lab) registries() {
	l.t.Helper()
	l.writeFile("/etc/registry-users", "me:$2b$04$jIurKbKyOPIINIEp.U0sHO9qEB1pXDBXuTxNfrd1xIMiX03yk7due\n") // secret
	for host, auth := range map[string]string{openRegistry: "", closedRegistry: "auth: {htpasswd: {realm: lab, path: /etc/registry-users}}\n"} {
		name := "registry-" + host[len(host)-4:]
		l.writeFile("/etc/"+name+".yml", fmt.Sprintf("version: 0.1\nlog: {level: error}\n%sstorage: {delete: {enabled: true}, filesystem: {rootdirectory: /var/lib/docker-registry/%s}}\nhttp: {addr: '%s'}\n", auth, name, host))
		l.exec("systemd-run", "--quiet", "--unit="+name, "docker-registry", "serve", "/etc/"+name+".yml")
		l.eventually(30*time.Second, "the registry answers", func() bool {
			return l.tryExec("curl", "--silent", "http://"+host+"/v2/").code == 0
		})
	}
}

// manyLayers is an archive of an image of n layers, of some random kilobytes each.
func manyLayers(tag string, n, kilobytes int) []byte {
	var config, layers []any
	var t tarball
	state := uint32(n)
	for i := range n {
		content := make([]byte, kilobytes<<10)
		for b := range content {
			state = state*1664525 + 1013904223
			content[b] = byte(state >> 24)
		}
		var layer tarball
		layer.add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("layer%d", i), Mode: 0o644}, content)
		data := layer.bytes()
		id := hexDigest(data)
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: id + "/layer.tar", Mode: 0o644}, data)
		config, layers = append(config, "sha256:"+id), append(layers, id+"/layer.tar")
	}
	image := mustJSON(map[string]any{
		"architecture": "amd64", "os": "linux", "created": time.Unix(0, 0).UTC(), "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": config},
	})
	name := hexDigest(image) + ".json"
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, image)
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644},
		mustJSON([]any{map[string]any{"Config": name, "RepoTags": []string{tag}, "Layers": layers}}))
	return t.bytes()
}

var digestLine = regexp.MustCompile(`digest: (sha256:[0-9a-f]{64})`)

// push pushes, and tells the digest that the registry has now.
func (l *lab) push(ref string) (digest string) {
	l.t.Helper()
	said := l.docker("push", ref)
	found := digestLine.FindStringSubmatch(said)
	assert.Assert(l.t, found != nil, said)
	return found[1]
}

// TestRegistry is what a person does with registries, against Debian's docker-registry.
func TestRegistry(t *testing.T) {
	t.Parallel()
	l := boot(t, withConfig("registry-mirrors = [\"http://"+openRegistry+"\"]\nmax-concurrent-downloads = 2\n"))
	l.registries()
	const many = openRegistry + "/many:1"

	l.clients("push and pull back", func(t *testing.T, l *lab) {
		ref := openRegistry + fmt.Sprintf("/library/bb%d:1", l.which)
		l.docker("tag", "busybox", ref)
		digest := l.push(ref)
		assert.Check(t, is.Contains(l.docker("push", ref), ": Layer already exists"))
		assert.Equal(t, l.push(ref), digest, "the third time")
		assert.Equal(t, l.docker("inspect", "--format", "{{index .RepoDigests 0}}", ref), strings.TrimSuffix(ref, ":1")+"@"+digest)
		id := l.docker("images", "--quiet", "--no-trunc", ref)
		l.docker("rmi", ref)

		said := l.docker("pull", ref)
		assert.Check(t, is.Contains(said, "Digest: "+digest))
		assert.Equal(t, l.docker("images", "--quiet", "--no-trunc", ref), id)
		l.docker("rmi", ref)
		pinned := strings.TrimSuffix(ref, ":1") + "@" + digest
		assert.Check(t, is.Contains(l.docker("pull", pinned), "Digest: "+digest))
		assert.Equal(t, l.docker("run", "--rm", pinned, "echo", "from", "a", "registry"), "from a registry")
		l.docker("rmi", pinned)

		// docker.io, which nobody can reach from here, has it too: by way of the mirror.
		name := fmt.Sprintf("bb%d:1", l.which)
		assert.Check(t, is.Contains(l.docker("pull", name), "Downloaded newer image for "+name))
		assert.Check(t, is.Contains(l.docker("pull", name), "Image is up to date for "+name))
		l.docker("rmi", name)
		l.refused(1, []string{"Error response from daemon: manifest for " + openRegistry + "/nothing:1 not found"}, "pull", openRegistry+"/nothing:1")
		l.refused(1, []string{"An image does not exist locally with the tag: " + openRegistry + "/nothing"}, "push", openRegistry+"/nothing:1")
		remote, err := l.client().DistributionInspect(t.Context(), ref, client.DistributionInspectOptions{})
		assert.NilError(t, err)
		assert.Equal(t, remote.Descriptor.Digest.String(), digest)
		assert.Equal(t, remote.Platforms[0].Architecture, "amd64")
		found := fmt.Sprintf("library/bb%d", l.which)
		assert.Equal(t, l.docker("search", "--format", "{{.Name}}", openRegistry+"/"+found), found)
	})

	l.clients("credentials", func(t *testing.T, l *lab) {
		ref := closedRegistry + fmt.Sprintf("/bb%d:1", l.which)
		l.docker("tag", "busybox", ref)
		l.refused(1, []string{"unauthorized"}, "push", ref)
		l.refused(1, []string{"unauthorized: incorrect username or password"}, "login", "--username", "me", "--password", "wrong", closedRegistry)
		assert.Check(t, is.Contains(l.docker("login", "--username", "me", "--password", "secret", closedRegistry), "Login Succeeded"))
		digest := l.push(ref)
		l.docker("rmi", ref)
		assert.Check(t, is.Contains(l.docker("pull", ref), digest))
		l.docker("rmi", ref)
		found := fmt.Sprintf("bb%d", l.which)
		assert.Equal(t, l.docker("search", "--format", "{{.Name}}", closedRegistry+"/"+found), found)
		l.docker("logout", closedRegistry)
		l.refused(1, []string{"pull access denied for " + strings.TrimSuffix(ref, ":1")}, "pull", ref)
	})

	l.newest("platforms", func(t *testing.T, l *lab) {
		for _, arch := range []string{"amd64", "arm64"} {
			var root tarball
			root.add(tar.Header{Typeflag: tar.TypeReg, Name: arch, Mode: 0o644}, []byte(arch))
			l.must("import", l.run(l.dockerCmd("import", "--platform", "linux/"+arch, "-", openRegistry+"/multi:"+arch), root.bytes()))
			l.push(openRegistry + "/multi:" + arch)
			l.docker("rmi", openRegistry+"/multi:"+arch)
		}
		l.exec("sh", "-ec", `
			cd /tmp; u=http://`+openRegistry+`/v2/multi/manifests
			for a in amd64 arm64; do
				curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' -o $a.json $u/$a
				jq --arg a $a --arg d sha256:$(sha256sum $a.json | cut -d' ' -f1) --argjson s $(stat -c %s $a.json) \
					'{mediaType, digest: $d, size: $s, platform: {os: "linux", architecture: $a}}' $a.json >$a.entry
			done
			jq -s '{schemaVersion: 2, mediaType: "application/vnd.docker.distribution.manifest.list.v2+json", manifests: .}' amd64.entry arm64.entry >list.json
			curl -fsS -X PUT -H 'Content-Type: application/vnd.docker.distribution.manifest.list.v2+json' --data-binary @list.json $u/1`)
		ref := openRegistry + "/multi:1"
		format := []string{"inspect", "--format", "{{.Architecture}}"}
		l.docker("pull", ref)
		assert.Equal(t, l.docker(append(format, ref)...), "amd64")
		l.docker("pull", "--platform", "linux/arm64", ref)
		assert.Equal(t, l.docker(append(format, ref)...), "arm64")
		l.refused(1, []string{"no matching manifest for linux/s390x in the manifest list entries"}, "pull", "--platform", "linux/s390x", ref)
		remote, err := l.client().DistributionInspect(t.Context(), ref, client.DistributionInspectOptions{})
		assert.NilError(t, err)
		assert.Equal(t, len(remote.Platforms), 2)
	})

	l.newest("50 layers, interrupted and taken up again", func(t *testing.T, l *lab) {
		l.load(manyLayers(many, 50, 64))
		id := l.docker("images", "--quiet", "--no-trunc", many)
		digest := l.push(many)
		l.docker("rmi", many)
		interrupts := []func(*exec.Cmd){ // the client goes, lrd is killed, lrd restarts
			func(pull *exec.Cmd) { _ = pull.Process.Signal(syscall.SIGINT) },
			func(*exec.Cmd) { l.kill9() },
			func(*exec.Cmd) { l.restart() },
		}
		interrupted := 0
		for n, tries := rounds(t, 2, 50), 0; interrupted < n; tries++ {
			assert.Assert(t, tries < 20*n, "a pull is always done before anybody can interrupt it")
			pull := l.dockerCmd("pull", many)
			out, err := pull.StdoutPipe()
			assert.NilError(t, err)
			assert.NilError(t, pull.Start())
			seen := readUntil(out, "Download complete", 6)
			interrupts[interrupted%len(interrupts)](pull)
			rest, _ := io.ReadAll(out)
			err = pull.Wait()
			said := seen + string(rest)
			if got := l.docker("images", "--quiet", "--no-trunc", many); got != "" || strings.Contains(said, "Status: Downloaded") {
				assert.Equal(t, got, id, said) // the pull was faster: all of it is there
				l.docker("rmi", many)
				continue
			}
			if interrupted%len(interrupts) > 0 { // what a client that was interrupted says of itself is its own matter
				assert.Check(t, err != nil, "the client of a pull that was interrupted takes it for done: %s", said)
			}
			interrupted++
		}
		said := l.docker("pull", many)
		assert.Check(t, strings.Count(said, "Already exists") >= 1, said)
		assert.Check(t, is.Contains(said, "Digest: "+digest))
		assert.Equal(t, l.docker("images", "--quiet", "--no-trunc", many), id)
		l.docker("rmi", many)
	})

	l.newest("an archive that is saved is whole or an error", func(t *testing.T, l *lab) {
		const big = "big:1"
		l.load(manyLayers(big, 3, 1<<10))
		for name, interrupt := range map[string]func(){"restart": l.restart, "SIGKILL": l.kill9} {
			save := l.dockerCmd("save", big, "busybox")
			var stderr bytes.Buffer
			save.Stderr = &stderr
			out, err := save.StdoutPipe()
			assert.NilError(t, err)
			assert.NilError(t, save.Start())
			_, err = io.CopyN(io.Discard, out, 100<<10) // and no more, so that it waits
			assert.NilError(t, err)
			interrupt()
			_, _ = io.Copy(io.Discard, out)
			assert.Check(t, save.Wait() != nil, "the client of a save takes what it has for whole after a %s", name)
			t.Logf("%s: %s", name, stderr.String())
		}
		// Nor does a client that sends nothing more hold a restart up.
		load := l.dockerCmd("load")
		in, err := load.StdinPipe()
		assert.NilError(t, err)
		var said bytes.Buffer
		load.Stderr = &said
		assert.NilError(t, load.Start())
		_, err = io.WriteString(in, "the beginning of an archive")
		assert.NilError(t, err)
		l.eventually(30*time.Second, "lrd reads the archive", func() bool { return l.tryExec("sh", "-c", "ls -d /var/lib/lrd/tmp/images/incoming-*").code == 0 })
		l.restart()
		assert.Check(t, load.Wait() != nil)
		assert.Check(t, is.Contains(said.String(), "lrd is stopping or restarting"))

		whole, _ := l.bytesOf(nil, "save", big, "busybox")
		ids := l.docker("images", "--quiet", "--no-trunc", big)
		l.docker("rmi", big)
		for _, l := range []*lab{l, l.old()} {
			assert.Check(t, is.Contains(l.must("load", l.run(l.dockerCmd("load"), whole)).stdout, "Loaded image: "+big))
			assert.Equal(t, l.docker("images", "--quiet", "--no-trunc", big), ids)
		}
	})

	l.newest("df and prune", func(t *testing.T, l *lab) {
		df := l.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}")
		assert.Check(t, is.Contains(df, "Build Cache 0 0"))
		l.docker("system", "df", "--verbose")
		l.old().docker("system", "df", "--verbose")
		l.docker("run", "--detach", "--name", "uses", "busybox", "sleep", "1000")
		said := l.docker("image", "prune", "--all", "--force")
		assert.Check(t, is.Contains(said, "untagged: big:1"))
		assert.Check(t, is.Regexp(`Total reclaimed space: [1-9]`, said))
		assert.Equal(t, l.docker("images", "--format", "{{.Repository}}"), "busybox")
		assert.Check(t, is.Contains(l.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"), "Images 1 1"))
		l.soundStorage()
		l.docker("rm", "--force", "uses")
		assert.Check(t, is.Contains(l.docker("system", "prune", "--all", "--force"), "deleted: sha256:"))
		assert.Equal(t, l.docker("images", "--quiet"), "")
		l.old().docker("system", "prune", "--all", "--force")
	})

	l.clients("what lrd leaves to others", func(t *testing.T, l *lab) {
		dir := t.TempDir()
		assert.NilError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o600))
		l.refused(1, []string{"buildah build", "docker buildx build --load"}, "build", dir)
	})
}

// readUntil reads until what has come n times, or the end.
func readUntil(r io.Reader, what string, n int) string {
	var seen bytes.Buffer
	buf := make([]byte, 4<<10)
	for strings.Count(seen.String(), what) < n {
		k, err := r.Read(buf)
		seen.Write(buf[:k])
		if err != nil {
			break
		}
	}
	return seen.String()
}

// hexDigest is the SHA-256 of data.
func hexDigest(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// soundStorage checks lrd's image storage from outside, while lrd runs: every image can be read to its end by
// another tool, each layer compared with its digest, and nothing is on its way in.
func (l *lab) soundStorage() {
	l.t.Helper()
	assert.Equal(l.t, l.exec("find", "/var/lib/lrd/tmp", "-type", "f"), "")
	for _, id := range strings.Fields(l.docker("images", "--all", "--quiet", "--no-trunc")) {
		l.exec("sh", "-ec", "d=$(mktemp -d); skopeo copy --quiet containers-storage:"+lrdRoot+"@"+strings.TrimPrefix(id, "sha256:")+" dir:$d; rm -r $d")
	}
}

// lrdRoot is lrd's image storage in the words of skopeo.
const lrdRoot = "[overlay@/var/lib/lrd/storage+/run/lrd/storage]"
