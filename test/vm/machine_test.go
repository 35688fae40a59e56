//go:build vm

package vm

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

const (
	// bootLimit is for a machine that does not come up, or does not go down.
	bootLimit = 30 * time.Minute
	// scriptLimit is for a script that hangs.
	scriptLimit = 10 * time.Minute
)

// machine is the virtual machine, as the test t sees it.
type machine struct {
	t       *testing.T
	console string
	agent   net.Conn
	lines   *bufio.Reader
	// ended is closed when qemu has ended.
	ended chan struct{}
}

// boot starts the machine, with lrd in it. It ends with the test.
func boot(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	disk := payload(t, dir)
	image := strings.TrimSpace(must(t, exec.Command(env("LRD_LAB", "../lab/lab"), "vm")))
	m := &machine{t: t, console: filepath.Join(dir, "console"), ended: make(chan struct{})}
	// A path in t.TempDir may be too long for a socket's.
	sockets, err := os.MkdirTemp("", "lrd-vm-")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	listener, err := net.Listen("unix", sockets+"/agent")
	assert.NilError(t, err)
	defer listener.Close()

	// One thread for both processors: with two, a processor may still run instructions that Linux has just replaced on the other.
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-smp", "2", "-m", "1536",
		"-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci",
		"-kernel", image+"/vmlinuz", "-initrd", image+"/initrd.img", "-append", "root=/dev/vda rw console=ttyS0 no_timer_check mitigations=off fsck.mode=skip systemd.log_color=no",
		"-drive", "if=virtio,format=raw,snapshot=on,file="+image+"/root.ext4",
		"-drive", "if=virtio,format=raw,readonly=on,file="+disk,
		"-serial", "file:"+m.console, "-serial", "unix:"+sockets+"/agent")
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() { // ends with qemu, which the cleanup ends
		defer close(m.ended)
		runtime.LockOSThread() // the thread is the parent whose death qemu is told of
		started <- cmd.Start()
		_ = cmd.Wait()
	}()
	assert.NilError(t, <-started)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-m.ended
		if t.Failed() {
			data, _ := os.ReadFile(m.console)
			t.Logf("qemu said: %s\nthe end of the console:\n%s", said.String(), data[max(0, len(data)-16<<10):])
		}
	})

	assert.NilError(t, listener.(*net.UnixListener).SetDeadline(time.Now().Add(scriptLimit)))
	m.agent, err = listener.Accept()
	assert.NilError(t, err, "qemu did not start")
	t.Cleanup(func() { _ = m.agent.Close() })
	m.lines = bufio.NewReader(m.agent)
	m.awaitAgent()
	return m
}

// payload makes the second disk in dir, and gives back its path.
func payload(t *testing.T, dir string) string {
	t.Helper()
	bin, err := filepath.Abs(env("LRD_BIN", "../../bin/lrd"))
	assert.NilError(t, err)
	tree, disk := filepath.Join(dir, "tree"), filepath.Join(dir, "disk.tar")
	assert.NilError(t, os.MkdirAll(tree+"/payload", 0o755))
	makeIt := exec.Command("make", "-s", "-C", "../..", "install", "DESTDIR="+tree, "PREFIX=/usr", "BIN="+filepath.Dir(bin), "LRD_BIN="+bin)
	makeIt.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=") // also below another make
	must(t, makeIt)
	must(t, exec.Command("cp", "testdata/agent", tree+"/payload/agent"))
	must(t, exec.Command("tar", "--owner=0", "--group=0", "-C", tree, "-cf", disk, "usr", "payload"))
	return disk
}

// in is the machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	other := *m
	other.t = t
	return &other
}

// awaitAgent waits until the machine has booted.
func (m *machine) awaitAgent() {
	m.t.Helper()
	assert.NilError(m.t, m.agent.SetDeadline(time.Now().Add(bootLimit)))
	began := time.Now()
	for line := ""; !strings.HasSuffix(line, "ready"); { // whatever came over the line before it
		data, err := m.lines.ReadString('\n')
		if err != nil {
			m.t.Fatalf("the machine did not come up: %v", err)
		}
		line = strings.TrimSpace(data)
	}
	m.t.Logf("up after %.1f s", time.Since(began).Seconds())
}

// try runs a shell script and gives its output, without space around it, and its exit code.
func (m *machine) try(script string) (output string, code int) {
	m.t.Helper()
	began := time.Now()
	output, code = m.ask(script)
	m.t.Logf("%s\nexits with %d after %.1f s: %s", script, code, time.Since(began).Seconds(), output)
	return output, code
}

// ask is try without a word.
func (m *machine) ask(script string) (output string, code int) {
	m.t.Helper()
	assert.NilError(m.t, m.agent.SetDeadline(time.Now().Add(scriptLimit)))
	_, err := fmt.Fprintln(m.agent, base64.StdEncoding.EncodeToString([]byte(script)))
	assert.NilError(m.t, err)
	answer, err := m.lines.ReadString('\n')
	assert.NilError(m.t, err, "no answer to %q", script)
	status, encoded, _ := strings.Cut(strings.TrimRight(answer, "\r\n"), " ")
	code, err = strconv.Atoi(status)
	assert.NilError(m.t, err, "answer %q", answer)
	data, err := base64.StdEncoding.DecodeString(encoded)
	assert.NilError(m.t, err)
	return strings.TrimSpace(string(data)), code
}

// sh is try for a script that must not fail.
func (m *machine) sh(script string) string {
	m.t.Helper()
	output, code := m.try(script)
	assert.Equal(m.t, code, 0, "%s", output)
	return output
}

// eventually waits until a script exits with 0.
func (m *machine) eventually(script string) {
	m.t.Helper()
	began := time.Now()
	for {
		output, code := m.ask(script)
		switch waited := time.Since(began); {
		case code == 0:
			m.t.Logf("%s\nexits with 0 in the end, after %.1f s", script, waited.Seconds())
			return
		case waited > scriptLimit:
			m.t.Fatalf("%s\nstill exits with %d: %s", script, code, output)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// inspect is a field of docker inspect, by its template.
func (m *machine) inspect(name, field string) string {
	m.t.Helper()
	return m.sh("docker inspect --format '{{" + field + "}}' " + name)
}

// group is the directory of the control group of a container's unit.
func (m *machine) group(name string) string {
	m.t.Helper()
	return m.sh("echo /sys/fs/cgroup$(systemctl show --property=ControlGroup --value lrd-$(docker inspect --format '{{.Id}}' " + name + ").service)")
}

// cgroup checks the content of files of a control group: "NAME CONTENT" each.
func (m *machine) cgroup(group string, want ...string) {
	m.t.Helper()
	script := "cd " + group
	for _, w := range want {
		name, _, _ := strings.Cut(w, " ")
		script += "; echo " + name + " $(cat " + name + ")"
	}
	assert.DeepEqual(m.t, strings.Split(m.sh(script), "\n"), want)
}

// must runs a command of this machine and gives its output.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, "%v: %s", cmd, &stderr)
	return string(out)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
