package api

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run creates and starts a container that runs cmd.
func run(t *testing.T, c *client.Client, name string, conf container.Config, host *container.HostConfig) {
	t.Helper()
	conf.Image = "busybox"
	made, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: &conf, HostConfig: host})
	assert.NilError(t, err)
	assert.Equal(t, len(made.ID), 64)
	_, err = c.ContainerStart(t.Context(), name, client.ContainerStartOptions{})
	assert.NilError(t, err)
}

func TestClientNegotiatesTheNewestVersion(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	ping, err := c.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true})
	assert.NilError(t, err)
	assert.Equal(t, ping.APIVersion, MaxVersion)
	assert.Equal(t, ping.OSType, "linux")
	assert.Equal(t, string(ping.SwarmStatus.NodeState), "inactive")
	assert.Equal(t, c.ClientVersion(), MaxVersion)
}

func TestClientRunsAContainer(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	made, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: "web", Config: &container.Config{Image: "busybox", Cmd: []string{"echo", "hello"}},
		HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}},
	})
	assert.NilError(t, err)
	assert.DeepEqual(t, made.Warnings, []string{})
	assert.Equal(t, w.containers.last.HostConfig.RestartPolicy.MaximumRetryCount, 3)

	wait := c.ContainerWait(t.Context(), "web", client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = c.ContainerStart(t.Context(), "web", client.ContainerStartOptions{})
	assert.NilError(t, err)
	select {
	case r := <-wait.Result:
		assert.Equal(t, r.StatusCode, int64(7))
	case err := <-wait.Error:
		t.Fatal(err)
	}

	logs, err := c.ContainerLogs(t.Context(), "web", client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Tail: "10", Since: "1.000000002"})
	assert.NilError(t, err)
	defer logs.Close()
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, logs)
	assert.NilError(t, err)
	assert.Equal(t, stdout.String(), "hello\n")
	assert.Equal(t, stderr.String(), "on stderr\n")
	asked := w.containers.lastLogs()
	assert.Equal(t, asked.Tail, 10)
	assert.Equal(t, asked.Since.UnixNano(), int64(1e9+2))
	assert.Assert(t, asked.Until.IsZero())

	in, err := c.ContainerInspect(t.Context(), "web", client.ContainerInspectOptions{})
	assert.NilError(t, err)
	assert.Equal(t, in.Container.State.ExitCode, 7)
	list, err := c.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("status", "exited").Add("label", "a=b", "c")})
	assert.NilError(t, err)
	assert.Equal(t, len(list.Items), 1)
	assert.DeepEqual(t, w.containers.o.Filters["label"], map[string]bool{"a=b": true, "c": true})
	_, err = c.ContainerUpdate(t.Context(), "web", client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 64 << 20}, RestartPolicy: &container.RestartPolicy{Name: "always"}})
	assert.NilError(t, err)
	assert.Equal(t, w.containers.update.Memory, int64(64<<20))
	assert.Equal(t, w.containers.update.RestartPolicy.Name, container.RestartPolicyAlways)
	_, err = c.ContainerRename(t.Context(), "web", client.ContainerRenameOptions{NewName: "web2"})
	assert.NilError(t, err)
	top, err := c.ContainerTop(t.Context(), "web2", client.ContainerTopOptions{})
	assert.NilError(t, err)
	assert.Equal(t, top.Processes[0][0], "-ef")
	_, err = c.ContainerRemove(t.Context(), "web2", client.ContainerRemoveOptions{})
	assert.NilError(t, err)
	_, err = c.ContainerInspect(t.Context(), "web2", client.ContainerInspectOptions{})
	assert.Error(t, err, "Error response from daemon: No such container: web2")
}

func TestClientAttaches(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	run(t, c, "cat", container.Config{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true}, nil)
	a, err := c.ContainerAttach(t.Context(), "cat", client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	assert.NilError(t, err)
	defer a.Close()
	media, _ := a.MediaType()
	assert.Equal(t, media, "application/vnd.docker.multiplexed-stream")
	_, err = io.WriteString(a.Conn, "to the container")
	assert.NilError(t, err)
	assert.NilError(t, a.CloseWrite())
	var stdout bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, io.Discard, a.Reader)
	assert.NilError(t, err)
	assert.Equal(t, stdout.String(), "to the container")
}

func TestClientDetachesFromATTY(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	run(t, c, "tty", container.Config{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, Tty: true}, nil)
	_, err := c.ContainerResize(t.Context(), "tty", client.ContainerResizeOptions{Height: 24, Width: 80})
	assert.NilError(t, err)
	a, err := c.ContainerAttach(t.Context(), "tty", client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, DetachKeys: "ctrl-x,q"})
	assert.NilError(t, err)
	defer a.Close()
	media, _ := a.MediaType()
	assert.Equal(t, media, "application/vnd.docker.raw-stream")
	_, err = io.WriteString(a.Conn, "ab\x18qc")
	assert.NilError(t, err)
	_, err = io.ReadAll(a.Reader)
	assert.NilError(t, err)
	in, err := c.ContainerInspect(t.Context(), "tty", client.ContainerInspectOptions{})
	assert.NilError(t, err)
	assert.Assert(t, in.Container.State.Running, "a detach stopped the container")
	assert.Equal(t, w.containers.all["tty"].size, [2]uint16{24, 80})
}

func TestClientHearsEvents(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	base := time.Now().Add(-time.Hour)
	for i, name := range []string{"early", "web"} {
		w.hub.Publish(eventtypes.Message{
			Type: "container", Action: "die", TimeNano: base.Add(time.Duration(i)).UnixNano(),
			Actor: eventtypes.Actor{ID: name, Attributes: map[string]string{"name": name, "exitCode": "7"}},
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	res := c.Events(ctx, client.EventsListOptions{Since: base.Format(time.RFC3339Nano), Filters: client.Filters{}.Add("container", "web").Add("event", "die")})
	m := <-res.Messages
	assert.Equal(t, m.Actor.ID, "web")
	assert.Equal(t, m.TimeNano, base.Add(1).UnixNano())
	w.hub.Publish(eventtypes.Message{Type: "container", Action: "start", Actor: eventtypes.Actor{ID: "web"}})
	w.hub.Publish(eventtypes.Message{Type: "container", Action: "die", Actor: eventtypes.Actor{ID: "web"}})
	m = <-res.Messages
	assert.Equal(t, string(m.Action), "die")
	cancel()
	<-res.Err

	// A time that has passed ends the stream by itself.
	past := c.Events(t.Context(), client.EventsListOptions{Until: base.Format(time.RFC3339Nano)})
	assert.Equal(t, (<-past.Messages).Actor.ID, "early")
	assert.Equal(t, <-past.Err, io.EOF)
}

func TestClientAndImages(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	loaded, err := c.ImageLoad(t.Context(), strings.NewReader("a tar"))
	assert.NilError(t, err)
	text, err := io.ReadAll(loaded)
	assert.NilError(t, err)
	loaded.Close()
	assert.Equal(t, string(text), `{"stream":"Loaded image: busybox:latest\n"}`+"\r\n")
	assert.Equal(t, string(w.images.loaded), "a tar")

	pulled, err := c.ImagePull(t.Context(), "busybox", client.ImagePullOptions{RegistryAuth: "eyJ1c2VybmFtZSI6InUifQ=="})
	assert.NilError(t, err)
	assert.NilError(t, pulled.Wait(t.Context()))
	assert.Equal(t, w.images.pulled, "busybox:latest")
	assert.Equal(t, w.images.auth.Username, "u")

	w.images.failure = invalid("the archive is damaged")
	_, err = c.ImageLoad(t.Context(), strings.NewReader("rubbish"))
	assert.Error(t, err, "Error response from daemon: the archive is damaged")
	pulled, err = c.ImagePull(t.Context(), "busybox", client.ImagePullOptions{})
	assert.NilError(t, err)
	assert.ErrorContains(t, pulled.Wait(t.Context()), "the archive is damaged")
	w.images.failure = nil

	images, err := c.ImageList(t.Context(), client.ImageListOptions{Filters: client.Filters{}.Add("dangling", "false")})
	assert.NilError(t, err)
	assert.Equal(t, images.Items[0].RepoTags[0], "busybox:latest")
	_, err = c.ImageInspect(t.Context(), "example.com:5000/a/b:c")
	assert.NilError(t, err)
	_, err = c.ImageTag(t.Context(), client.ImageTagOptions{Source: "busybox", Target: "b:1"})
	assert.NilError(t, err)
	_, err = c.ImageHistory(t.Context(), "busybox")
	assert.NilError(t, err)
	removed, err := c.ImageRemove(t.Context(), "busybox", client.ImageRemoveOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(removed.Items), 2)

	past := c.Events(t.Context(), client.EventsListOptions{Since: "1", Until: time.Now().Format(time.RFC3339Nano), Filters: client.Filters{}.Add("type", "image")})
	var actions []string
	for range 5 {
		actions = append(actions, string((<-past.Messages).Action))
	}
	assert.DeepEqual(t, actions, []string{"load", "pull", "tag", "untag", "delete"})
	<-past.Err
}

func TestClientAndTheRest(t *testing.T) {
	w := newWorld(t).serve(t)
	w.conf.LiveRestore = true
	c := w.client(t)
	info, err := c.Info(t.Context(), client.InfoOptions{})
	assert.NilError(t, err)
	assert.Assert(t, info.Info.LiveRestoreEnabled)
	assert.Assert(t, info.Info.ID != "" && info.Info.KernelVersion != "" && info.Info.MemTotal > 0)
	assert.Assert(t, is.Contains(info.Info.Warnings, "WARNING: from elsewhere"))
	v, err := c.ServerVersion(t.Context(), client.ServerVersionOptions{})
	assert.NilError(t, err)
	assert.Equal(t, v.APIVersion, MaxVersion)
	run(t, c, "a", container.Config{Cmd: []string{"sleep"}}, nil)
	du, err := c.DiskUsage(t.Context(), client.DiskUsageOptions{Containers: true, Images: true, Volumes: true, BuildCache: true, Verbose: true})
	assert.NilError(t, err)
	assert.Equal(t, du.Images.TotalSize, int64(42))
	assert.Equal(t, du.Images.ActiveCount, int64(1))
	assert.Equal(t, du.Containers.ActiveCount, int64(1))
	assert.Equal(t, du.Volumes.TotalSize, int64(5))
	vols, err := c.VolumeList(t.Context(), client.VolumeListOptions{Filters: client.Filters{}.Add("dangling", "true")})
	assert.NilError(t, err)
	assert.Equal(t, vols.Items[0].Name, "data")
	_, err = c.VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: "v"})
	assert.NilError(t, err)
	_, err = c.VolumePrune(t.Context(), client.VolumePruneOptions{})
	assert.NilError(t, err)
	_, err = c.VolumeRemove(t.Context(), "v", client.VolumeRemoveOptions{})
	assert.NilError(t, err)
	nets, err := c.NetworkList(t.Context(), client.NetworkListOptions{})
	assert.NilError(t, err)
	assert.Equal(t, nets.Items[0].Name, "bridge")
	_, err = c.NetworkRemove(t.Context(), "bridge", client.NetworkRemoveOptions{})
	assert.Error(t, err, "Error response from daemon: bridge is a pre-defined network and cannot be removed")
	made, err := c.NetworkCreate(t.Context(), "mine", client.NetworkCreateOptions{Driver: "bridge"})
	assert.NilError(t, err)
	assert.Equal(t, made.ID, "n1")
	_, err = c.NetworkConnect(t.Context(), "mine", client.NetworkConnectOptions{Container: "a", EndpointConfig: &network.EndpointSettings{GwPriority: 1}})
	assert.NilError(t, err)
	_, err = c.NetworkDisconnect(t.Context(), "mine", client.NetworkDisconnectOptions{Container: "a", Force: true})
	assert.NilError(t, err)
	assert.DeepEqual(t, w.containers.joined, []string{"connect mine true", "disconnect mine true"})
	_, err = c.NetworkDisconnect(t.Context(), "mine", client.NetworkDisconnectOptions{Container: "nobody"})
	assert.ErrorContains(t, err, "No such container")
	pruned, err := c.NetworkPrune(t.Context(), client.NetworkPruneOptions{})
	assert.NilError(t, err)
	assert.DeepEqual(t, pruned.Report.NetworksDeleted, []string{"old"})
	_, err = c.NetworkRemove(t.Context(), "mine", client.NetworkRemoveOptions{})
	assert.NilError(t, err)
	_, err = c.SwarmInit(t.Context(), client.SwarmInitOptions{})
	assert.Error(t, err, "Error response from daemon: --live-restore daemon configuration is incompatible with swarm mode")
	w.conf.LiveRestore = false
	_, err = c.SwarmInit(t.Context(), client.SwarmInitOptions{})
	assert.ErrorContains(t, err, "lrd has no swarm mode")
}
