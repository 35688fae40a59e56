package oci

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
)

func TestExecProcess(t *testing.T) {
	caps := []string{"CAP_CHOWN"}
	own := &specs.Process{
		Args: []string{"init"}, Cwd: "/srv", Terminal: true, ConsoleSize: &specs.Box{Height: 1, Width: 2},
		Env:             []string{"PATH=/own", "HOSTNAME=box", "HOME=/var", "A=1", "TERM=xterm"},
		User:            specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{33}},
		Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		NoNewPrivileges: true, ApparmorProfile: "lrd-default",
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
	}
	config := &container.Config{Env: []string{"PATH=/own", "A=1"}, Tty: true}
	make := func(r container.ExecCreateRequest) (*specs.Process, error) {
		if r.Cmd == nil {
			r.Cmd = []string{"cmd", "arg"}
		}
		return ExecProcess(ExecInput{
			Container: own, Config: config, Hostname: "box", Request: &r,
			User:    User{UID: 7, GID: 8, AdditionalGIDs: []uint32{8, 9}, Home: "/seven"},
			Machine: Machine{Capabilities: []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, AppArmorProfile: "lrd-default"},
		})
	}

	t.Run("what it does not say is the container's", func(t *testing.T) {
		p, err := make(container.ExecCreateRequest{})
		assert.NilError(t, err)
		assert.DeepEqual(t, p.Args, []string{"cmd", "arg"})
		assert.DeepEqual(t, p.Env, []string{"PATH=/own", "HOSTNAME=box", "HOME=/var", "A=1"})
		assert.DeepEqual(t, p.User, own.User)
		assert.DeepEqual(t, p.Capabilities, own.Capabilities)
		assert.DeepEqual(t, p.Rlimits, own.Rlimits)
		assert.Equal(t, p.Cwd, "/srv")
		assert.Equal(t, p.ApparmorProfile, "lrd-default")
		assert.Assert(t, p.NoNewPrivileges && !p.Terminal && p.ConsoleSize == nil)
	})
	t.Run("what it says", func(t *testing.T) {
		p, err := make(container.ExecCreateRequest{
			User: "seven", Tty: true, ConsoleSize: &[2]uint{24, 80}, WorkingDir: "/tmp", Env: []string{"A=2", "B=3"}, Privileged: true,
		})
		assert.NilError(t, err)
		assert.DeepEqual(t, p.Env, []string{"PATH=/own", "HOSTNAME=box", "TERM=xterm", "HOME=/seven", "A=2", "B=3"})
		assert.DeepEqual(t, p.User, specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{8, 9}})
		assert.Assert(t, slices.Contains(p.Capabilities.Effective, "CAP_SYS_ADMIN"))
		assert.DeepEqual(t, p.ConsoleSize, &specs.Box{Height: 24, Width: 80})
		assert.Equal(t, p.Cwd, "/tmp")
		assert.Equal(t, p.ApparmorProfile, "unconfined")
		assert.DeepEqual(t, own.Capabilities.Effective, []string{"CAP_CHOWN"})
	})
	for _, r := range []container.ExecCreateRequest{{Cmd: []string{}}, {Cmd: []string{""}}, {WorkingDir: "tmp"}} {
		_, err := make(r)
		assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	}
}
