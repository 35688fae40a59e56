//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// busybox is an archive as `docker save` writes it, with the image
// busybox:latest: this machine's static busybox, links for its applets, and
// the few files that a root file system needs. It is made once.
var busybox = sync.OnceValue(func() []byte {
	layer, err := busyboxLayer()
	if err != nil {
		panic(fmt.Sprintf("cannot make the busybox image: %v", err))
	}
	return dockerArchive("busybox:latest", map[string]any{"Cmd": []string{"sh"}}, layer)
})

func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w (package busybox-static; test/lab/lab deps installs it)", err)
	}
	if f, err := elf.Open(path); err != nil {
		return nil, err
	} else if _, err := f.DynString(elf.DT_NEEDED); err == nil && f.Section(".interp") != nil {
		return nil, fmt.Errorf("%s is not static (package busybox-static)", path)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var t tarball
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var"} {
		t.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, binary)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			t.add(tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + applet, Linkname: "bin/busybox", Mode: 0o755}, nil)
		}
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nwww:x:33:33:www:/var:/bin/false\n",
		"etc/group":  "root:x:0:\nwww:x:33:\ntape:x:26:www\nnogroup:x:65534:\n",
	} {
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(content))
	}
	return t.bytes(), nil
}

// dockerArchive is an archive of `docker save`: one image of one layer. config
// is the "config" object of the image's configuration.
func dockerArchive(tag string, config map[string]any, layer []byte) []byte {
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(layer))
	image := mustJSON(map[string]any{
		"architecture": "amd64", "os": "linux", "created": time.Unix(0, 0).UTC(),
		"config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
		"history": []any{
			map[string]any{"created": time.Unix(0, 0).UTC(), "created_by": "lrd integration tests"},
		},
	})
	name := fmt.Sprintf("%x.json", sha256.Sum256(image))
	layerName := strings.TrimPrefix(diffID, "sha256:") + "/layer.tar"
	manifest := mustJSON([]any{map[string]any{"Config": name, "RepoTags": []string{tag}, "Layers": []string{layerName}}})

	var t tarball
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, image)
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: layerName, Mode: 0o644}, layer)
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644}, manifest)
	return t.bytes()
}

// tarball is a tar archive in memory, where nothing can fail but the test.
type tarball struct {
	buf bytes.Buffer
	w   *tar.Writer
}

func (t *tarball) add(h tar.Header, content []byte) {
	if t.w == nil {
		t.w = tar.NewWriter(&t.buf)
	}
	h.Size, h.ModTime = int64(len(content)), time.Unix(0, 0)
	if err := t.w.WriteHeader(&h); err != nil {
		panic(err)
	}
	if _, err := t.w.Write(content); err != nil {
		panic(err)
	}
}

func (t *tarball) bytes() []byte {
	if err := t.w.Close(); err != nil {
		panic(err)
	}
	return t.buf.Bytes()
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
