package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"

	"lrd/internal/config"
	"lrd/internal/containers"
	"lrd/internal/events"
	"lrd/internal/output"
)

// fakeContainers is a Manager in memory, whose containers run one of three programs: "echo WORDS", "cat", and
// "sleep", which waits to be stopped.
type fakeContainers struct {
	mu     sync.Mutex
	all    map[string]*fakeContainer // by name
	last   containers.CreateRequest
	err    error // what every method returns, if set
	o      containers.ListOptions
	stop   containers.StopOptions
	update container.UpdateConfig
	logs   output.LinesOptions
	slow   chan struct{} // Stop waits for it, if set
	exec   *fakeExec     // the one made last

	joined    []string // networks connected and disconnected
	samples   uint64   // how many Stats has taken
	extracted extracted
	committed containers.CommitOptions
	pruned    containers.Filters
}

type fakeContainer struct {
	id, name string
	req      containers.CreateRequest
	log      *fakeLog
	stdin    *io.PipeWriter
	stdinR   *io.PipeReader
	done     chan struct{}
	code     int
	running  bool
	size     [2]uint16
}

func newFakeContainer(id string) *fakeContainer {
	c := &fakeContainer{id: id, log: newFakeLog(), done: make(chan struct{})}
	c.stdinR, c.stdin = io.Pipe()
	return c
}

// fakeLog is what a container wrote: every reader has a position of its own.
type fakeLog struct {
	mu     sync.Mutex
	chunks []output.Chunk
	ended  bool
	change chan struct{} // closed and replaced at every change
}

func newFakeLog() *fakeLog { return &fakeLog{change: make(chan struct{})} }

func (l *fakeLog) add(s output.Stream, text string, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text != "" {
		l.chunks = append(l.chunks, output.Chunk{Stream: s, Time: time.Now(), Data: []byte(text)})
	}
	l.ended = l.ended || ended
	close(l.change)
	l.change = make(chan struct{})
}

type fakeReader struct {
	log    *fakeLog
	at     int
	follow bool
}

func (r *fakeReader) Next(ctx context.Context) (output.Chunk, error) {
	for {
		r.log.mu.Lock()
		n, ended, change := len(r.log.chunks), r.log.ended, r.log.change
		if r.at < n {
			c := r.log.chunks[r.at]
			r.at++
			r.log.mu.Unlock()
			return c, nil
		}
		r.log.mu.Unlock()
		if ended || !r.follow {
			return output.Chunk{}, io.EOF
		}
		select {
		case <-change:
		case <-ctx.Done():
			return output.Chunk{}, ctx.Err()
		}
	}
}

func (f *fakeContainers) get(ref string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	for _, c := range f.all {
		if c.name == ref || strings.HasPrefix(c.id, ref) {
			return c, nil
		}
	}
	return nil, errdefs.ErrNotFound.WithMessage("No such container: " + ref)
}

func (f *fakeContainers) Create(_ context.Context, req containers.CreateRequest) (container.CreateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = req
	if f.err != nil {
		return container.CreateResponse{}, f.err
	}
	if req.Config.Image == "missing" {
		return container.CreateResponse{}, errdefs.ErrNotFound.WithMessage("No such image: missing:latest")
	}
	n := len(f.all)
	if req.Name == "" {
		req.Name = fmt.Sprintf("quiet_test%d", n)
	}
	if f.all[req.Name] != nil {
		return container.CreateResponse{}, errdefs.ErrConflict.WithMessage(fmt.Sprintf("Conflict. The container name %q is already in use", "/"+req.Name))
	}
	c := newFakeContainer(fmt.Sprintf("%064x", n+1))
	c.name, c.req = req.Name, req
	f.all[req.Name] = c
	return container.CreateResponse{ID: c.id}, nil
}

func (f *fakeContainers) Start(_ context.Context, ref string) error {
	c, err := f.get(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.running {
		return containers.ErrNotModified
	}
	c.running = true
	cmd := c.req.Config.Cmd
	switch {
	case len(cmd) > 0 && cmd[0] == "echo":
		go func() {
			c.log.add(output.Stdout, strings.Join(cmd[1:], " ")+"\n", false)
			c.log.add(output.Stderr, "on stderr\n", false)
			f.exit(c, 7)
		}()
	case len(cmd) > 0 && cmd[0] == "cat":
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := c.stdinR.Read(buf)
				c.log.add(output.Stdout, string(buf[:n]), false)
				if err != nil {
					f.exit(c, 0)
					return
				}
			}
		}()
	}
	return nil
}

func (f *fakeContainers) exit(c *fakeContainer, code int) {
	f.mu.Lock()
	if !c.running {
		f.mu.Unlock()
		return
	}
	c.running, c.code = false, code
	auto := c.req.HostConfig.AutoRemove
	if auto {
		delete(f.all, c.name)
	}
	f.mu.Unlock()
	c.stdinR.Close()
	c.log.add(0, "", true)
	close(c.done)
}

func (f *fakeContainers) Stop(ctx context.Context, ref string, o containers.StopOptions) error {
	c, err := f.get(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.stop = o
	running, slow := c.running, f.slow
	f.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !running {
		return fmt.Errorf("container %s is already stopped: %w", ref, containers.ErrNotModified)
	}
	f.exit(c, 143)
	return nil
}

func (f *fakeContainers) Restart(_ context.Context, ref string, o containers.StopOptions) error {
	f.stop = o
	_, err := f.get(ref)
	return err
}

func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	c, err := f.get(ref)
	if err != nil {
		return err
	}
	if !c.running {
		return errdefs.ErrConflict.WithMessage("container " + ref + " is not running")
	}
	if signal == "" || signal == "KILL" || signal == "SIGKILL" {
		f.exit(c, 137)
	}
	return nil
}

func (f *fakeContainers) Pause(_ context.Context, ref string) error { _, err := f.get(ref); return err }

func (f *fakeContainers) Unpause(_ context.Context, ref string) error {
	_, err := f.get(ref)
	return err
}

func (f *fakeContainers) Rename(_ context.Context, ref, name string) error {
	c, err := f.get(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, c.name)
	c.name, f.all[name] = name, c
	return nil
}

func (f *fakeContainers) Update(_ context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	f.update = u
	_, err := f.get(ref)
	return container.UpdateResponse{Warnings: []string{}}, err
}

func (f *fakeContainers) Remove(_ context.Context, ref string, o containers.RemoveOptions) error {
	c, err := f.get(ref)
	if err != nil {
		return err
	}
	if c.running && !o.Force {
		return errdefs.ErrConflict.WithMessage("cannot remove container: container is running")
	}
	f.exit(c, 137)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, c.name)
	return nil
}

func (c *fakeContainer) state() container.ContainerState {
	select {
	case <-c.done:
		return container.StateExited
	default:
	}
	if c.running {
		return container.StateRunning
	}
	return container.StateCreated
}

func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (container.InspectResponse, error) {
	c, err := f.get(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return container.InspectResponse{
		ID: c.id, Name: "/" + c.name, Config: c.req.Config, HostConfig: c.req.HostConfig,
		State: &container.State{Status: c.state(), Running: c.running, ExitCode: c.code},
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.18.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.18.0.1"), EndpointID: "ep"},
		}},
	}, nil
}

func (f *fakeContainers) List(_ context.Context, o containers.ListOptions) ([]container.Summary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o = o
	list := []container.Summary{}
	for _, c := range f.all {
		if o.All || c.running {
			list = append(list, container.Summary{
				ID: c.id, Names: []string{"/" + c.name}, Image: c.req.Config.Image, ImageID: "sha256:1", State: c.state(), Status: "Up 2 seconds", SizeRw: 10,
				Ports: []container.PortSummary{{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
			})
		}
	}
	slices.SortFunc(list, func(a, b container.Summary) int { return strings.Compare(a.ID, b.ID) })
	return list, f.err
}

func (f *fakeContainers) Top(_ context.Context, ref string, args []string) (container.TopResponse, error) {
	_, err := f.get(ref)
	return container.TopResponse{Titles: []string{"ARGS"}, Processes: [][]string{{strings.Join(args, " ")}}}, err
}

// Stats of a container that runs are one more each time.
func (f *fakeContainers) Stats(_ context.Context, ref string) (container.StatsResponse, error) {
	c, err := f.get(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	stats := container.StatsResponse{ID: c.id, Name: "/" + c.name}
	if c.running {
		f.samples++
		stats.Read = time.Now()
		stats.CPUStats.CPUUsage.TotalUsage = f.samples
	}
	return stats, nil
}

func (f *fakeContainers) Counts() containers.Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return containers.Counts{Total: len(f.all)}
}

func (f *fakeContainers) Attach(ctx context.Context, ref string, o containers.AttachOptions) (*containers.Attachment, error) {
	c, err := f.get(ref)
	if err != nil {
		return nil, err
	}
	a := &containers.Attachment{TTY: c.req.Config.Tty, StdinOnce: c.req.Config.StdinOnce, Done: c.done}
	if o.Stdout || o.Stderr {
		a.Output = &fakeReader{log: c.log, follow: o.Stream}
	}
	if o.Stdin && c.req.Config.OpenStdin {
		a.Stdin = c.stdin
	}
	return a, nil
}

func (f *fakeContainers) Logs(_ context.Context, ref string, o containers.LogsOptions) (containers.OutputReader, bool, error) {
	c, err := f.get(ref)
	if err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs = o.LinesOptions
	return &fakeReader{log: c.log, follow: o.Follow}, c.req.Config.Tty, nil
}

// lastLogs are the options that logs were asked for with last.
func (f *fakeContainers) lastLogs() output.LinesOptions {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logs
}

func (f *fakeContainers) Wait(ctx context.Context, ref string, _ container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := f.get(ref)
	if err != nil {
		return nil, err
	}
	ch := make(chan container.WaitResponse, 1)
	go func() {
		select {
		case <-c.done:
			ch <- container.WaitResponse{StatusCode: int64(c.code)}
		case <-ctx.Done():
		}
	}()
	return ch, nil
}

func (f *fakeContainers) Reading(ref string, _ bool) (func(), error) {
	_, err := f.get(ref)
	return func() {}, err
}

func (f *fakeContainers) Resize(_ context.Context, ref string, height, width uint16) error {
	c, err := f.get(ref)
	if err == nil {
		c.size = [2]uint16{height, width}
	}
	return err
}

// world is a Server over fakes on a unix socket.
type world struct {
	*Server
	containers *fakeContainers
	images     *fakeImages
	volumes    *fakeVolumes
	hub        *events.Hub
	conf       *config.Config
	socket     string
	http       *http.Client
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		containers: &fakeContainers{all: map[string]*fakeContainer{}},
		images:     &fakeImages{}, volumes: &fakeVolumes{}, conf: config.Default(),
	}
	var err error
	w.hub, err = events.Open(t.TempDir(), events.Options{})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, w.hub.Close()) })
	w.Server = New(Options{
		Containers: w.containers, Images: w.images, Volumes: w.volumes, Networks: fakeNetworks{}, Events: w.hub,
		Config:   func() *config.Config { return w.conf },
		Reload:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "reloaded") }),
		Build:    Build{Version: "0.1.0"},
		Warnings: func() []string { return []string{"WARNING: from elsewhere"} },
		Log:      slog.New(slog.DiscardHandler),
	})
	return w
}

// serve begins serving on a socket and ends it with the test.
func (w *world) serve(t testing.TB) *world {
	t.Helper()
	w.socket = filepath.Join(t.TempDir(), "lrd.sock")
	l, err := net.Listen("unix", w.socket)
	assert.NilError(t, err)
	served := make(chan error, 1)
	go func() { served <- w.Serve(l) }()
	w.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}}}
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		w.containers.mu.Lock()
		all := []*fakeContainer{}
		for _, c := range w.containers.all {
			all = append(all, c)
		}
		w.containers.mu.Unlock()
		for _, c := range all {
			w.containers.exit(c, 137)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.Check(t, w.Shutdown(ctx))
		assert.Check(t, <-served)
	})
	return w
}

func (w *world) client(t *testing.T, opts ...client.Opt) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Opt{client.WithHost("unix://" + w.socket)}, opts...)...)
	assert.NilError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
