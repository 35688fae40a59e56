package containers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// hostile is a name that does whatever a careless script lets it do.
const hostile = "it's \"a\" $HOME $(touch pwned) `touch pwned` \\ ; touch pwned & *\n#"

// fakeRuntime tells what it was started with: its arguments in args, each ended
// by a zero byte, its descriptors in fds, and its standard input in input. At its end it has its arguments in ended.
const fakeRuntime = `#!/bin/sh
here=${0%/*}
printf '%s\0' "$@" >"$here/args"
fds=$(for fd in 0 1 2 9; do
	[ -e /proc/$$/fd/$fd ] && link=$(readlink /proc/$$/fd/$fd) && echo "$fd ${link##*/} $(sed -n 's/^flags:.*\(.\)$/\1/p' /proc/$$/fdinfo/$fd)"
done)
printf '%s\n' "$fds" >"$here/fds"
cat >"$here/input"
echo out
echo err >&2
cp "$here/args" "$here/ended"
`

// bundleIn is a bundle on disk, with a runtime that tells.
func bundleIn(t *testing.T, dir string, change func(*bundle)) bundle {
	t.Helper()
	assert.NilError(t, os.MkdirAll(dir, 0o700))
	b := bundle{
		id: longID("a"), name: "web", dir: dir, root: filepath.Join(dir, "runtime"),
		runtime: Runtime{Path: filepath.Join(dir, "crun")}, spec: &specs.Spec{Version: "1.0.2"},
	}
	if change != nil {
		change(&b)
	}
	assert.NilError(t, os.WriteFile(b.runtime.Path, []byte(fakeRuntime), 0o755))
	assert.NilError(t, b.write())
	return b
}

// runScript runs a script as systemd does.
func runScript(t *testing.T, path string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sh := exec.CommandContext(ctx, "/bin/sh", path)
	sh.Dir = t.TempDir()
	sh.Env = append(os.Environ(), env...)
	sh.WaitDelay = time.Second
	out, err := sh.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	_, err = os.Lstat(filepath.Join(sh.Dir, "pwned"))
	assert.Check(t, os.IsNotExist(err), "the script ran what it should have quoted")
}

func (b bundle) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(b.path(name))
	assert.NilError(t, err)
	return string(data)
}

func (b bundle) args(t *testing.T) []string {
	t.Helper()
	return strings.Split(strings.TrimSuffix(b.read(t, "args"), "\x00"), "\x00")
}

// pipe makes a FIFO of the bundle and opens our end of it.
func (b bundle) pipe(t *testing.T, name string) *os.File {
	t.Helper()
	assert.NilError(t, unix.Mkfifo(b.path(name), 0o600))
	f, err := openFIFO(b.path(name), 0)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestCreateScript(t *testing.T) {
	b := bundleIn(t, t.TempDir(), nil)
	stdout, stderr := b.pipe(t, fdStdout), b.pipe(t, fdStderr)
	runScript(t, b.path(createScript))
	// The last digit of the flags is the access mode: 0 reading, 2 both (open(2)).
	assert.Check(t, is.Equal(b.read(t, "fds"), "0 null 0\n1 stdout 2\n2 stderr 2\n"))
	assert.Check(t, is.Equal(read(t, stdout), "out\n"))
	assert.Check(t, is.Equal(read(t, stderr), "err\n"))
	assert.Check(t, is.DeepEqual(b.args(t), []string{
		"--root", b.root, "--cgroup-manager=disabled", "--log", b.path(runtimeLog), "--log-format", "json",
		"create", "--bundle", b.path("bundle"), "--pid-file", b.path("pid"), b.id,
	}))
	assert.Check(t, is.Equal(b.read(t, runtimeLog), ""))
}

// read is what is in a pipe now.
func read(t *testing.T, f *os.File) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := f.Read(buf)
	assert.NilError(t, err)
	return string(buf[:n])
}

// Nobody else has the FIFOs open: the daemon is away, and systemd starts the container again.
func TestCreateScriptWaitsForNobody(t *testing.T) {
	b := bundleIn(t, t.TempDir(), func(b *bundle) { b.stdin = true })
	for _, name := range []string{fdStdin, fdStdout, fdStderr} {
		_ = b.pipe(t, name).Close()
	}
	runScript(t, b.path(createScript))
	assert.Check(t, is.Equal(b.read(t, "fds"), "0 stdin 0\n1 stdout 2\n2 stderr 2\n"))
	assert.Check(t, is.Equal(b.read(t, "input"), "")) // ended at once: there is no writer
}

func TestCreateScriptWithInput(t *testing.T) {
	b := bundleIn(t, t.TempDir(), func(b *bundle) { b.stdin = true })
	stdin := b.pipe(t, fdStdin)
	b.pipe(t, fdStdout)
	b.pipe(t, fdStderr)
	_, err := stdin.WriteString("hello\n")
	assert.NilError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runScript(t, b.path(createScript))
	}()
	eventually(t, "read", func() bool {
		data, _ := os.ReadFile(b.path("input"))
		return string(data) == "hello\n"
	})
	select {
	case <-done:
		t.Fatal("the input ended before its writer")
	default:
	}
	assert.NilError(t, stdin.Close())
	<-done
	assert.Check(t, is.Equal(b.read(t, "input"), "hello\n"))
}

func TestCreateScriptWithConsole(t *testing.T) {
	b := bundleIn(t, t.TempDir(), func(b *bundle) { b.tty = true })
	script := b.read(t, createScript)
	assert.Check(t, is.Contains(script, "'--console-socket' '"+b.path(fdListener)+"'"))
	assert.Check(t, !strings.Contains(script, fdStdout))
}

func TestScriptsQuote(t *testing.T) {
	dir := filepath.Join(t.TempDir(), hostile)
	b := bundleIn(t, dir, func(b *bundle) {
		b.runtime.Args = []string{hostile, "", "--x=" + hostile}
		b.policy.Name = container.RestartPolicyAlways
	})
	b.pipe(t, fdStdout)
	b.pipe(t, fdStderr)
	runScript(t, b.path(createScript))
	args := b.args(t)
	assert.Check(t, is.DeepEqual(args[:3], b.runtime.Args))
	assert.Check(t, is.Equal(args[len(args)-1], b.id))
	for _, script := range []string{startScript, againScript, exitedScript} {
		runScript(t, b.path(script))
		assert.Check(t, is.DeepEqual(b.args(t)[:3], b.runtime.Args), script)
	}
}

func TestStartScript(t *testing.T) {
	b := bundleIn(t, t.TempDir(), nil)
	runScript(t, b.path(startScript))
	assert.Check(t, is.DeepEqual(b.args(t), []string{
		"--root", b.root, "--cgroup-manager=disabled", "--log", b.path(runtimeLog), "--log-format", "json", "start", b.id,
	}))
}

func TestAgainScript(t *testing.T) {
	again := func(b bundle) bool {
		return exec.CommandContext(t.Context(), "/bin/sh", b.path(againScript)).Run() == nil
	}
	always := bundleIn(t, t.TempDir(), func(b *bundle) { b.policy.Name = container.RestartPolicyAlways })
	twice := bundleIn(t, t.TempDir(), func(b *bundle) {
		b.policy = container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 2}
	})
	never := bundleIn(t, t.TempDir(), nil)
	for exits := range 4 {
		assert.Check(t, is.Equal(again(never), exits == 0))
		assert.Check(t, again(always))
		assert.Check(t, is.Equal(again(twice), exits <= 2), "%d exits", exits)
		for _, b := range []bundle{always, twice, never} {
			runScript(t, b.path(exitedScript))
		}
	}
	assert.NilError(t, os.WriteFile(always.path(stoppingFile), nil, 0o600))
	assert.Check(t, !again(always))
}

// A runtime that is none of crun's kind gets no option of crun's own.
func TestOtherRuntime(t *testing.T) {
	b := bundle{runtime: Runtime{Path: "/usr/sbin/runc"}, root: "/r"}
	assert.Check(t, is.DeepEqual(b.command(), []string{"/usr/sbin/runc", "--root", "/r"}))
}

func TestExitedScript(t *testing.T) {
	const invocation = "0123456789abcdef0123456789abcdef"
	env := func(result, code, status string) []string {
		return []string{"INVOCATION_ID=" + invocation, "SERVICE_RESULT=" + result, "EXIT_CODE=" + code, "EXIT_STATUS=" + status}
	}
	// A systemctl(1) that knows the time of the end, and one that does not.
	asked := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(asked, "systemctl"), []byte("#!/bin/sh\necho 'Sat 2000-01-01 00:00:05.250000 UTC'\n"), 0o755))
	mute := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(mute, "systemctl"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	garbled := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(garbled, "systemctl"), []byte("#!/bin/sh\necho n/a\n"), 0o755))

	for _, policy := range []container.RestartPolicyMode{"no", "always"} {
		for _, path := range []string{asked, mute, garbled} {
			b := bundleIn(t, t.TempDir(), func(b *bundle) { b.policy.Name = policy })
			before := time.Now()
			for _, e := range [][]string{env("success", "exited", "0"), env("exit-code", "exited", "7"), env("signal", "killed", "TERM"), nil} {
				runScript(t, b.path(exitedScript), append(e, "PATH="+path+":"+os.Getenv("PATH"))...)
			}
			if policy == "always" {
				assert.Check(t, is.DeepEqual(b.args(t), []string{"--root", b.root, "--cgroup-manager=disabled", "delete", "--force", b.id}))
			}
			assert.Check(t, is.Len(strings.Split(strings.TrimSpace(b.read(t, exitsFile)), "\n"), 4))
			notes, err := readExits(b.path(exitsFile))
			assert.NilError(t, err)
			assert.Assert(t, is.Len(notes, 3)) // the last one told of no process
			for i, code := range []int{0, 7, 143} {
				assert.Check(t, is.Equal(notes[i].code, code))
				assert.Check(t, is.Equal(notes[i].invocation, invocation))
				assert.Check(t, notes[i].oomKills == 0)
				if policy == "always" && path == asked {
					assert.Check(t, notes[i].at.Equal(time.Date(2000, 1, 1, 0, 0, 5, 250000000, time.UTC)), "%s", notes[i].at)
				} else {
					assert.Check(t, !notes[i].at.Before(before) && !notes[i].at.After(time.Now()))
				}
			}
		}
	}
}

// A container's end is put away also where its names cannot be taken back.
func TestExitedScriptWithoutNames(t *testing.T) {
	dir := t.TempDir()
	for _, where := range []string{dir, filepath.Join(dir, "nowhere")} {
		mark := filepath.Join(where, "mark")
		b := bundleIn(t, t.TempDir(), func(b *bundle) { b.endedMark, b.policy.Name = mark, container.RestartPolicyAlways })
		runScript(t, b.path(exitedScript))
		assert.Check(t, is.DeepEqual(b.args(t), []string{"--root", b.root, "--cgroup-manager=disabled", "delete", "--force", b.id}))
		_, err := os.Stat(mark)
		assert.Check(t, is.Equal(err == nil, where == dir))
	}
}
