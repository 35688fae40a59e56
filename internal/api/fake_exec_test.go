package api

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
	"lrd/internal/output"
)

// fakeExec is a command in a fake container: "cat" gives back its input,
// "nosuch" cannot be run, anything else writes to both streams and exits with 7.
type fakeExec struct {
	*fakeContainer
	request container.ExecCreateRequest
	started containers.ExecStartOptions
	code    *int
}

func (f *fakeContainers) ExecCreate(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	if _, err := f.get(ref); err != nil {
		return "", err
	}
	f.exec = &fakeExec{fakeContainer: newFakeContainer(strings.Repeat("e", 64)), request: req}
	return f.exec.id, nil
}

func (f *fakeContainers) findExec(id string) (*fakeExec, error) {
	if f.exec == nil || f.exec.id != id {
		return nil, errdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
	}
	return f.exec, nil
}

func (f *fakeContainers) ExecStart(ctx context.Context, id string, o containers.ExecStartOptions) (*containers.Attachment, error) {
	e, err := f.findExec(id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	e.started = o
	f.mu.Unlock()
	exited := func(code int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		e.code = &code
	}
	end := func(code int) {
		exited(code)
		e.log.add(0, "", true)
		close(e.done)
	}
	switch e.request.Cmd[0] {
	case "nosuch":
		if o.Detach {
			exited(127)
			return nil, &containers.StartError{ExitCode: 127}
		}
		e.log.add(output.Stdout, "no such command", false)
		end(127)
	case "cat":
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := e.stdinR.Read(buf)
				e.log.add(output.Stdout, string(buf[:n]), false)
				if err != nil {
					end(0)
					return
				}
			}
		}()
	default:
		e.log.add(output.Stdout, "out", false)
		e.log.add(output.Stderr, "err", false)
		end(7)
	}
	if o.Detach {
		return nil, nil
	}
	return f.ExecAttach(ctx, id, output.Position{})
}

// ExecAttach takes the records of from for chunks.
func (f *fakeContainers) ExecAttach(_ context.Context, id string, from output.Position) (*containers.Attachment, error) {
	e, err := f.findExec(id)
	if err != nil {
		return nil, err
	}
	a := &containers.Attachment{TTY: e.request.Tty, StdinOnce: true, Done: e.done, Output: &fakeReader{log: e.log, at: int(from.Record), follow: true}}
	if e.request.AttachStdin {
		a.Stdin = e.stdin
	}
	return a, nil
}

func (f *fakeContainers) ExecInspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	e, err := f.findExec(id)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := e.request
	return container.ExecInspectResponse{
		ID: id, ExitCode: e.code, ProcessConfig: &container.ExecProcessConfig{Tty: q.Tty},
		OpenStdin: q.AttachStdin, OpenStdout: q.AttachStdout, OpenStderr: q.AttachStderr, DetachKeys: []byte(q.DetachKeys),
	}, nil
}

func (f *fakeContainers) ExecResize(_ context.Context, id string, height, width uint16) error {
	e, err := f.findExec(id)
	if err == nil {
		e.size = [2]uint16{height, width}
	}
	return err
}
