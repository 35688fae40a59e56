package containers

import (
	"context"
	"errors"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"
)

// Autostart starts what should run and does not: after a boot, and after a
// stop of the daemon that shut the containers down; those that share another
// one's namespaces after all others. It returns when every start has been tried. It is called after the daemon has reported that it is ready,
// since a container's unit is ordered after it.
func (m *Manager) Autostart(ctx context.Context) {
	var first, second []*Container
	for _, c := range slices.Backward(m.all()) { // oldest first
		switch r, _ := c.snapshot(); {
		case !c.wantsStart(m.o.BootID):
		case dependent(r):
			second = append(second, c)
		default:
			first = append(first, c)
		}
	}
	m.startAll(ctx, first)
	m.startAll(ctx, second)
}

func (m *Manager) startAll(ctx context.Context, which []*Container) {
	var group errgroup.Group
	group.SetLimit(restoreParallel)
	for _, c := range which {
		group.Go(func() error {
			if err := m.Start(ctx, c.id); err != nil && !errors.Is(err, ErrNotModified) && !errdefs.IsNotFound(err) {
				m.logger(c.id, "autostart").Error("Cannot start the container", "error", err)
			}
			return nil
		})
	}
	_ = group.Wait() // has no error: what is wrong is said at the container
}

// wantsStart says whether the restart policy wants the container started at a start of the daemon.
func (c *Container) wantsStart(bootID string) bool {
	r, s := c.snapshot()
	if c.foreign || s.State != container.StateExited || s.StartedAt.IsZero() {
		return false
	}
	return policyWantsStart(r.HostConfig.RestartPolicy, s, r.LastBoot != "" && r.LastBoot != bootID)
}

// policyWantsStart is the rule. Docker starts containers with the policy always
// at every start of the daemon, stopped by a person or not. lrd does so after
// a boot only: a restart of the daemon changes nothing.
func policyWantsStart(p container.RestartPolicy, s Status, booted bool) bool {
	switch {
	case p.IsAlways():
		return booted || !s.ManuallyStopped
	case p.IsUnlessStopped():
		return !s.ManuallyStopped
	case p.IsOnFailure():
		return !s.ManuallyStopped && s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}
