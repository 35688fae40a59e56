//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// commandTimeout ends a command that hangs. None takes this long on a machine
// that works, however busy.
const commandTimeout = 2 * time.Minute

// patience is how many times longer than a quiet machine a busy one may take for what a test waits for. It costs time only
// where a test fails.
const patience = 5

// lab is a machine with lrd on it, and a docker client that talks to it.
type lab struct {
	t      *testing.T
	name   string // LAB
	which  int    // clientNew or clientOld
	host   string // DOCKER_HOST; the path is a symbolic link into the lab
	init   string // process ID of the lab's init, as this machine numbers it
	dotDir string // DOCKER_CONFIG, so that no configuration of a person plays a part

	// stuck is set when a command hung: the lab has been questioned then, and nothing more is asked of it.
	stuck *atomic.Bool
}

// result is what a command left.
type result struct {
	stdout, stderr string // trimmed
	code           int    // 128+n if it died by signal n, as a shell has it
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

type options struct {
	config string
	image  bool
}

type option func(*options)

// withConfig gives lrd this /etc/lrd/lrd.toml from its first start on.
func withConfig(toml string) option { return func(o *options) { o.config = toml } }

// withoutImage leaves the image store empty.
func withoutImage() option { return func(o *options) { o.image = false } }

// boot boots a lab with lrd installed as its package does it, starts lrd and
// loads the image busybox:latest. The lab lives until the test ends.
func boot(t *testing.T, opts ...option) *lab {
	t.Helper()
	o := options{image: true}
	for _, opt := range opts {
		opt(&o)
	}
	suite.mu.Lock()
	suite.booted++
	l := &lab{t: t, name: fmt.Sprintf("it-%s-%d-%d", suite.name, os.Getpid(), suite.booted), dotDir: t.TempDir(), stuck: new(atomic.Bool)}
	suite.mu.Unlock()

	t.Cleanup(l.down)
	l.must("lab up", l.run(l.command(context.Background(), "up"), nil))
	l.refresh()
	if o.config != "" {
		l.writeFile("/etc/lrd/lrd.toml", o.config)
	}
	l.start()
	if o.image {
		l.load(busybox())
	}
	return l
}

// refresh learns where the lab is: its init is another process after each boot.
func (l *lab) refresh() {
	l.t.Helper()
	l.init = l.must("lab pid", l.run(l.command(context.Background(), "pid"), nil)).stdout
	l.host = strings.TrimPrefix(l.must("lab env", l.run(l.command(context.Background(), "env"), nil)).stdout, "export DOCKER_HOST=")
}

// down ends the lab. What matters here is that nothing of it stays on this
// machine, which `lab down` checks; nobody needs its system to go down nicely.
func (l *lab) down() {
	stuck := l.stuck.Swap(false)
	if l.t.Failed() && !stuck {
		r := l.tryExec("journalctl", "--no-pager", "--output=short-precise", "--lines=120", "--unit=lrd", "--unit=lrd-*")
		l.t.Logf("journal of %s (the last lines):\n%s", l.name, r.stdout)
	}
	if used := l.processorTime(); used > 0 {
		l.t.Logf("%s: %s of processor time", l.name, used.Round(time.Second/10))
	}
	// A lab that has never come up has no init.
	if init := l.run(l.command(context.Background(), "pid"), nil); init.code == 0 {
		var pid int
		if _, err := fmt.Sscan(init.stdout, &pid); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // the kernel ends all its others with it
		}
	}
	if r := l.run(l.command(context.Background(), "down"), nil); r.code != 0 {
		l.t.Errorf("lab down: %s", r)
	}
}

// processorTime is what the lab's systemd and all processes below it that have
// ended have used. Tests of both suites share the machine's processors.
func (l *lab) processorTime() (sum time.Duration) {
	stat, err := os.ReadFile(filepath.Join("/proc", l.init, "stat"))
	if err != nil {
		return 0
	}
	// The second field is a name in brackets. utime, stime, cutime and cstime are fields 14 to 17, in ticks of 10 ms (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:15] {
		ticks, _ := strconv.Atoi(f)
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum
}

// command is the lab command with these arguments.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, suite.lab, args...)
	cmd.Env = append(os.Environ(), "LAB="+l.name, "SUITE="+suite.name, "LRD_BIN="+suite.bin)
	return cmd
}

// run runs a command to its end.
func (l *lab) run(cmd *exec.Cmd, stdin []byte) result {
	if l.stuck.Load() {
		return result{code: -1, stderr: "not run: an earlier command hung"}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second // somebody else has its output open
	err := cmd.Start()
	if err == nil {
		timer := time.AfterFunc(commandTimeout, func() { _ = cmd.Process.Kill() })
		err = cmd.Wait()
		if !timer.Stop() {
			fmt.Fprintf(&stderr, "\nkilled by the test: it took more than %s\n%s", commandTimeout, l.autopsy())
		}
	}
	r := result{stdout: strings.TrimSpace(stdout.String()), stderr: strings.TrimSpace(stderr.String())}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			r.code = 128 + int(status.Signal())
		}
	default:
		r.code = -1
		r.stderr += "\n" + err.Error()
	}
	return r
}

// autopsy tells what systemd and lrd are at when a command hangs, and ends lrd for it: the runtime of Go prints all
// goroutines at SIGABRT. Only the first time; who else hangs, hangs for the same reason.
func (l *lab) autopsy() string {
	if !l.stuck.CompareAndSwap(false, true) {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := l.command(ctx, "exec", "bash", "-c", `
		echo "systemd: $(grep State: /proc/1/status) in $(cat /proc/1/wchan)"
		cat /proc/1/stack
		timeout 5 systemctl --no-pager list-jobs
		ps -eo pid,ppid,stat,wchan:24,args
		pkill -ABRT -x lrd
		sleep 1
		journalctl --no-pager --output=cat --lines=2000 --unit=lrd`).CombinedOutput()
	return fmt.Sprintf("%s\n(%v)", out, err)
}

// must ends the test if what was done failed.
func (l *lab) must(what string, r result) result {
	l.t.Helper()
	if r.code != 0 {
		l.t.Fatalf("%s: %s", what, r)
	}
	return r
}

// exec runs a command in the lab and gives back its standard output, trimmed.
func (l *lab) exec(cmd ...string) string {
	l.t.Helper()
	return l.must(strings.Join(cmd, " "), l.tryExec(cmd...)).stdout
}

// tryExec runs a command in the lab. It may be called from any goroutine.
func (l *lab) tryExec(cmd ...string) result {
	return l.run(l.command(context.Background(), append([]string{"exec"}, cmd...)...), nil)
}

// readFile reads a file of the lab.
func (l *lab) readFile(path string) string {
	l.t.Helper()
	data, err := os.ReadFile(l.path(path))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

// writeFile writes a file of the lab, and makes the directories it is in.
func (l *lab) writeFile(path, content string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.path(path)), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.path(path), []byte(content), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// copyTool builds a program of testdata and puts it into the lab, where any container can run it.
func (l *lab) copyTool(name, path string) {
	l.t.Helper()
	binary := filepath.Join(l.t.TempDir(), name)
	build := exec.CommandContext(l.t.Context(), "go", "build", "-o", binary, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static: there is no C library in busybox
	if out, err := build.CombinedOutput(); err != nil {
		l.t.Fatalf("cannot build %s: %v\n%s", name, err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		l.t.Fatal(err)
	}
	l.writeFile(path, string(data))
	l.exec("chmod", "755", path)
}

// path is where this machine sees a file of the lab. An absolute symbolic link
// in it leads astray: it would be followed here.
func (l *lab) path(path string) string { return filepath.Join("/proc", l.init, "root", path) }

// config writes /etc/lrd/lrd.toml; reload or restart makes it take effect.
func (l *lab) config(toml string) {
	l.t.Helper()
	l.writeFile("/etc/lrd/lrd.toml", toml)
}

// restart is `systemctl restart lrd`; lrd is ready when it returns.
func (l *lab) restart() {
	l.t.Helper()
	l.exec("systemctl", "restart", "lrd")
}

// stop is `systemctl stop lrd`. The socket stays: a client that connects starts lrd.
func (l *lab) stop() {
	l.t.Helper()
	l.exec("systemctl", "stop", "lrd.service")
}

// stopBoth is the way to have nobody collect output.
func (l *lab) stopBoth() {
	l.t.Helper()
	l.exec("systemctl", "stop", "lrd.service", "lrd-standby.service")
}

// start is `systemctl start lrd`; lrd is ready when it returns.
func (l *lab) start() {
	l.t.Helper()
	l.exec("systemctl", "start", "lrd.service")
}

// kill9 kills lrd with SIGKILL and waits until systemd has started it again and
// it answers.
func (l *lab) kill9() {
	l.t.Helper()
	// Once the old one is reaped, its service waits to be restarted, and a start of it waits for that.
	l.exec("sh", "-ec", `
		old=$(systemctl show --property=MainPID --value lrd.service)
		[ "$old" != 0 ] # or there is nothing to kill
		systemctl kill --signal=KILL --kill-who=main lrd.service
		while kill -0 "$old" 2>/dev/null; do sleep 0.01; done
		systemctl start lrd.service`)
	l.docker("version")
}

// journal is what journalctl has to tell, including all that was logged until now.
func (l *lab) journal(args ...string) string {
	l.t.Helper()
	l.exec("journalctl", "--sync")
	var r result
	l.eventually(10*time.Second, "journalctl reads all of the journal", func() bool {
		r = l.tryExec(append([]string{"journalctl", "--quiet", "--no-pager", "--output=cat"}, args...)...)
		return !strings.Contains(r.stderr, "ignoring file") // which it does with one that journald extends just then
	})
	return l.must("journalctl", r).stdout
}

// reload is `systemctl reload lrd`; the error is that it failed.
func (l *lab) reload() error {
	if r := l.tryExec("systemctl", "reload", "lrd.service"); r.code != 0 {
		return fmt.Errorf("systemctl reload lrd: %s", r)
	}
	return nil
}

// old is the same lab through the old docker client.
func (l *lab) old() *lab {
	other := *l
	other.which = clientOld
	return &other
}

// dockerCmd is the docker client, for what needs pipes or a terminal. It is
// killed if it is still there when the test ends.
func (l *lab) dockerCmd(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(l.t.Context(), suite.clients[l.which], args...)
	cmd.Env = []string{
		"DOCKER_HOST=" + l.host, "DOCKER_CONFIG=" + l.dotDir, "HOME=" + l.dotDir,
		"PATH=" + os.Getenv("PATH"), "TERM=xterm", "LANG=C.UTF-8",
	}
	return cmd
}

// docker runs the docker client and gives back its standard output, trimmed.
func (l *lab) docker(args ...string) string {
	l.t.Helper()
	return l.must("docker "+strings.Join(args, " "), l.tryDocker(args...)).stdout
}

// tryDocker runs the docker client. It may be called from any goroutine.
func (l *lab) tryDocker(args ...string) result { return l.run(l.dockerCmd(args...), nil) }

// load loads an archive of `docker save`.
func (l *lab) load(archive []byte) {
	l.t.Helper()
	l.must("docker load", l.run(l.dockerCmd("load"), archive))
}

// client is Docker's own client library, for what the docker client does not show.
func (l *lab) client() *client.Client {
	l.t.Helper()
	c, err := client.New(client.WithHost(l.host))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// inspect is `docker inspect` of a container.
func (l *lab) inspect(ref string) container.InspectResponse {
	l.t.Helper()
	c, err := client.New(client.WithHost(l.host))
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close() // tests ask often, and each would keep a connection
	r, err := c.ContainerInspect(l.t.Context(), ref, client.ContainerInspectOptions{})
	if err != nil {
		l.t.Fatalf("inspect %s: %v", ref, err)
	}
	return r.Container
}

// eventually waits until a condition holds. The limit is for a machine that is
// quiet: see patience.
func (l *lab) eventually(d time.Duration, what string, cond func() bool) {
	l.t.Helper()
	// Often at first, as most conditions hold soon; then seldom, as looking costs others their processor.
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(patience * d); ; time.Sleep(pause) {
		last := time.Now().After(deadline) // before looking, which may take long
		if cond() {
			return
		}
		if last {
			l.t.Fatalf("%s: not in %s", what, patience*d)
		}
		pause = min(pause*3/2, 200*time.Millisecond)
	}
}
