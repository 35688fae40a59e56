package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
)

// engine is a container engine with a way of logging.
type engine struct {
	name  string // in the table
	kind  string // lrd, docker or podman: one daemon
	log   []string
	part  int64    // of the bytes: a slow one is given less
	start []string // units that make it answer
	units []string // all of its own
	lab   *lab
	host  string // DOCKER_HOST
	api   *client.Client
}

// prepare configures the engines of those kinds and loads the image into each.
func (b *bench) prepare(kinds string) error {
	l := b.lab
	// Docker as Debian ships it, but that containers survive it, as they do lrd, and without a network, which the lab has not.
	// The data is where an overlay can be the upper layer.
	const docker = `{"data-root": "/var/lib/containers/docker", "live-restore": true, "bridge": "none", "iptables": false, "ip6tables": false}`
	if err := l.write("/etc/docker/daemon.json", []byte(docker)); err != nil {
		return err
	}
	// It is restarted more often than systemd likes.
	if err := l.write("/etc/systemd/system/docker.service.d/bench.conf", []byte("[Unit]\nStartLimitIntervalSec=0\n")); err != nil {
		return err
	}
	if _, err := l.exec("systemctl", "daemon-reload"); err != nil {
		return err
	}
	// Podman too, but for a limit that needs a controller which a lab may not have.
	if err := l.write("/etc/containers/containers.conf", []byte("[containers]\npids_limit = 0\n")); err != nil {
		return err
	}
	add := func(name, kind, socket string, part int64, start, units, log []string) {
		e := &engine{name: name, kind: kind, log: log, part: part, start: start, units: units, lab: l, host: "unix://" + l.root + socket}
		if listed(kinds, kind) {
			b.engines = append(b.engines, e)
		}
	}
	lrd := []string{"lrd.socket", "lrd.service"}
	lrds := append([]string{"lrd-standby.service"}, lrd...)
	moby := []string{"docker.socket", "docker.service", "containerd.service"}
	pod := []string{"podman.socket", "podman.service"}
	add("lrd", "lrd", "/run/lrd.sock", 1, lrd, lrds, []string{"--log-opt", "max-size=-1"})
	add("lrd, json-file", "lrd", "/run/lrd.sock", 1, lrd, lrds, []string{"--log-driver", "json-file"})
	add("docker, json-file", "docker", "/run/docker.sock", 4, moby, moby, []string{"--log-driver", "json-file"})
	add("podman, k8s-file", "podman", "/run/podman/podman.sock", 4, pod[:1], pod, []string{"--log-driver", "k8s-file"})

	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := l.write("/usr/local/bin/bench", program); err != nil {
		return err
	}
	image, err := benchImage(program)
	if err != nil {
		return err
	}
	for _, e := range b.engines {
		if e.api, err = client.New(client.WithHost(e.host)); err != nil {
			return err
		}
		if e.main() {
			if err := b.alone(e); err != nil {
				return err
			}
			if err := e.load(image); err != nil {
				return err
			}
		}
	}
	for _, v := range [][]string{{"lrd", "version"}, {"dockerd", "--version"}, {"containerd", "--version"}, {"podman", "--version"}, {"crun", "--version"}, {"runc", "--version"}, {"systemctl", "--version"}, {"uname", "-r"}} {
		out, err := l.exec(v...)
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(out, "\n")
		b.versions = append(b.versions, strings.TrimSpace(v[0]+": "+line))
	}
	return nil
}

// main says that it is its daemon's engine for what has nothing to do with logging.
func (e *engine) main() bool { return e.name != "lrd, json-file" }

// mains are the engines whose daemons differ.
func (b *bench) mains() (all []*engine) {
	for _, e := range b.engines {
		if e.main() {
			all = append(all, e)
		}
	}
	return all
}

func (e *engine) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(e.lab.ctx, e.lab.docker, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.host)
	return cmd
}

// do is the docker client.
func (e *engine) do(args ...string) (string, error) { return output(e.command(args...)) }

// clean removes all containers.
func (e *engine) clean() error {
	ids, err := e.do("ps", "--all", "--quiet")
	if err != nil || ids == "" {
		return err
	}
	// Podman's rm --force asks nicely first, for ten seconds each. What does not run cannot be killed.
	_, _ = e.do(append([]string{"kill"}, strings.Fields(ids)...)...)
	_, err = e.do(append([]string{"rm", "--force"}, strings.Fields(ids)...)...)
	return err
}

// logFile is where the engine writes what a container of that id writes, as this machine sees it.
func (e *engine) logFile(id string) (string, error) {
	path := "/var/lib/lrd/containers/" + id + "/output/stdout.0000000000000000" // see internal/output
	if e.name != "lrd" {
		var err error
		if path, err = e.do("inspect", "--format", "{{.LogPath}}", id); err != nil {
			return "", err
		}
	}
	if path == "" {
		return "", fmt.Errorf("%s does not say where it writes what %s writes", e.name, id)
	}
	return filepath.Join(e.lab.root, path), nil
}

func (e *engine) load(archive []byte) error {
	cmd := e.command("load")
	cmd.Stdin = bytes.NewReader(archive)
	_, err := output(cmd)
	return err
}

// benchImage is the image "bench:latest": this machine's static busybox, and this program.
func benchImage(program []byte) ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	box, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var layer archive
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "truth"} {
		layer.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	layer.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, box)
	for _, applet := range []string{"sh", "true", "sleep", "cat"} {
		layer.add(tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + applet, Linkname: "bin/busybox", Mode: 0o755}, nil)
	}
	layer.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/bench", Mode: 0o755}, program)
	return dockerArchive("bench:latest", layer.bytes()), nil
}

// largeImage is an image of one layer of bytes that do not compress.
func largeImage(tag string, size int) []byte {
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, size)
	_, _ = random.Read(b)
	var layer archive
	layer.add(tar.Header{Typeflag: tar.TypeReg, Name: "large", Mode: 0o644}, b)
	return dockerArchive(tag, layer.bytes())
}

// layeredImage is the bench image with small layers on top, n in all.
func layeredImage(tag string, base []byte, n int) []byte {
	layers := [][]byte{base}
	for i := 1; i < n; i++ {
		var layer archive
		for f := range 20 {
			layer.add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("etc/%d-%d", i, f), Mode: 0o644}, []byte(strings.Repeat("x", 1000)))
		}
		layers = append(layers, layer.bytes())
	}
	return dockerArchive(tag, layers...)
}

// baseLayer is the layer of the bench image without this program.
func baseLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	box, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var layer archive
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp", "etc"} {
		layer.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	layer.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/true", Mode: 0o755}, box)
	return layer.bytes(), nil
}

// dockerArchive is an archive as `docker save` writes it.
func dockerArchive(tag string, layers ...[]byte) []byte {
	var a archive
	var ids, names []string
	for _, layer := range layers {
		sum := fmt.Sprintf("%x", sha256.Sum256(layer))
		ids, names = append(ids, "sha256:"+sum), append(names, filepath.Join(sum, "layer.tar"))
		a.add(tar.Header{Typeflag: tar.TypeReg, Name: filepath.Join(sum, "layer.tar"), Mode: 0o644}, layer)
	}
	config := object(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	name := fmt.Sprintf("%x.json", sha256.Sum256(config))
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, config)
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644},
		object([]any{map[string]any{"Config": name, "RepoTags": []string{tag}, "Layers": names}}))
	return a.bytes()
}

// archive is a tar archive in memory.
type archive struct {
	buf bytes.Buffer
	w   *tar.Writer
}

func (a *archive) add(h tar.Header, content []byte) {
	if a.w == nil {
		a.w = tar.NewWriter(&a.buf)
	}
	h.Size = int64(len(content))
	// A bytes.Buffer takes everything, and the headers are right.
	if err := a.w.WriteHeader(&h); err != nil {
		panic(err)
	}
	if _, err := a.w.Write(content); err != nil {
		panic(err)
	}
}

func (a *archive) bytes() []byte {
	if err := a.w.Close(); err != nil {
		panic(err)
	}
	return a.buf.Bytes()
}

func object(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of strings and maps
	}
	return b
}
