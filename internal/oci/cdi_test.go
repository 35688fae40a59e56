package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const cdiSpec = `
cdiVersion: "0.5.0"
kind: "nvidia.com/gpu"
containerEdits:
  env: ["DRIVER=here"]
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/gpu0, type: c, major: 195, minor: 0, permissions: rw}]
      mounts: [{hostPath: /usr/lib/gpu, containerPath: /usr/lib/gpu, options: [ro, bind]}]
  - name: "1"
    containerEdits:
      deviceNodes: [{path: /dev/gpu1, type: c, major: 195, minor: 1}]
  - name: all
    containerEdits:
      deviceNodes: [{path: /dev/gpu0, type: c, major: 195, minor: 0}, {path: /dev/gpu1, type: c, major: 195, minor: 1}]
`

// injected is what a request makes of an empty Spec.
func injected(t *testing.T, r container.DeviceRequest) (*specs.Spec, []DeviceAllow, error) {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "gpu.yaml"), []byte(cdiSpec), 0o600))
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	allow, err := InjectCDI(s, []container.DeviceRequest{r}, []string{dir})
	return s, allow, err
}

func TestInjectCDI(t *testing.T) {
	s, allow, err := injected(t, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=0"}})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(s.Process.Env, []string{"DRIVER=here"}))
	assert.Assert(t, is.Len(s.Linux.Devices, 1))
	assert.Check(t, is.Equal(s.Linux.Devices[0].Path, "/dev/gpu0"))
	assert.Check(t, is.Equal(s.Mounts[0].Destination, "/usr/lib/gpu"))
	assert.Check(t, is.DeepEqual(allow, []DeviceAllow{{"/dev/char/195:0", "rw"}}))
	assert.Check(t, s.Linux.Resources == nil, "the limits are the unit's")
}

func TestGPUs(t *testing.T) {
	gpu := [][]string{{"gpu"}}
	for _, tc := range []struct {
		r    container.DeviceRequest
		want []string
		err  string
	}{
		{container.DeviceRequest{Count: -1, Capabilities: gpu}, []string{"/dev/gpu0", "/dev/gpu1"}, ""},
		{container.DeviceRequest{Count: 1, Capabilities: gpu}, []string{"/dev/gpu0"}, ""},
		{container.DeviceRequest{DeviceIDs: []string{"1"}, Driver: "nvidia", Capabilities: gpu}, []string{"/dev/gpu1"}, ""},
		{container.DeviceRequest{Count: 3, Capabilities: gpu}, nil, "cannot give the container 3 GPUs: there are 2"},
		{container.DeviceRequest{Count: -1, Driver: "amd", Capabilities: gpu}, nil, `could not select device driver "amd"`},
		{container.DeviceRequest{DeviceIDs: []string{"7"}, Capabilities: gpu}, nil, "unresolvable CDI devices nvidia.com/gpu=7"},
	} {
		s, _, err := injected(t, tc.r)
		if tc.err != "" {
			assert.Check(t, is.ErrorContains(err, tc.err))
			continue
		}
		assert.NilError(t, err)
		var paths []string
		for _, d := range s.Linux.Devices {
			paths = append(paths, d.Path)
		}
		assert.Check(t, is.DeepEqual(paths, tc.want))
	}
	_, err := InjectCDI(&specs.Spec{}, []container.DeviceRequest{{Count: -1, Capabilities: gpu}}, []string{t.TempDir()})
	assert.Check(t, is.ErrorContains(err, "there are no CDI devices of a class gpu"))
}

func TestCheckDeviceRequests(t *testing.T) {
	for sentence, r := range map[string]container.DeviceRequest{
		`could not select device driver "" with capabilities: [[tpu]]`: {Capabilities: [][]string{{"tpu"}}},
		"no CDI device is named":      {Driver: "cdi"},
		`invalid CDI device name "x"`: {Driver: "cdi", DeviceIDs: []string{"x"}},
	} {
		assert.Check(t, is.ErrorContains(checkDeviceRequests([]container.DeviceRequest{r}), sentence))
	}
}

func TestAllow(t *testing.T) {
	l := Limits{DevicePolicy: "strict", DeviceAllow: []DeviceAllow{{"/dev/char/1:3", "rwm"}, {"/dev/char/1:9", "m"}}}
	l.Allow(DeviceAllow{"/dev/char/1:3", "r"}, DeviceAllow{"/dev/char/1:9", "r"}, DeviceAllow{"/dev/char/9:9", "w"})
	assert.Check(t, is.DeepEqual(l.DeviceAllow, []DeviceAllow{{"/dev/char/1:3", "rwm"}, {"/dev/char/1:9", "rm"}, {"/dev/char/9:9", "w"}}))
	l = Limits{DevicePolicy: "auto"}
	l.Allow(DeviceAllow{"/dev/char/1:3", "r"})
	assert.Check(t, is.Len(l.DeviceAllow, 0), "all is allowed")
}
