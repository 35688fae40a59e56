package fdstore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestValidName(t *testing.T) {
	for _, name := range []string{"x", "a b", strings.Repeat("f", 64) + ".stdout", "~!", strings.Repeat("x", 255)} {
		assert.Check(t, ValidName(name), name)
	}
	for _, name := range []string{"", "a:b", "a\nb", "\x7f", "ä", strings.Repeat("x", 256)} {
		err := ValidName(name)
		assert.Check(t, is.ErrorIs(err, ErrName), name)
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
}

func TestPassedNames(t *testing.T) {
	self, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid()+1)
	for _, x := range []struct {
		pid, fds, names string
		want            []string
		err             string
	}{
		{"", "", "", nil, ""},
		{other, "2", "a:b", nil, ""},
		{self, "0", "", []string{}, ""},
		{self, "2", "a:b", []string{"a", "b"}, ""},
		{self, "2", "", []string{"unknown", "unknown"}, ""},
		{self, "3", "a::a", []string{"a", "", "a"}, ""},
		{self, "3", "a:b", nil, "2 names for 3 descriptors"},
		{self, "-1", "", nil, "not a number of descriptors"},
		{self, "99999999999", "", nil, "not a number of descriptors"},
		{"x", "1", "", nil, "not a number"},
	} {
		env := map[string]string{"LISTEN_PID": x.pid, "LISTEN_FDS": x.fds, "LISTEN_FDNAMES": x.names}
		got, err := passedNames(func(k string) string { return env[k] })
		if x.err != "" {
			assert.Check(t, is.ErrorContains(err, x.err))
			continue
		}
		assert.Check(t, err)
		assert.Check(t, is.DeepEqual(got, x.want), "%+v", x)
	}
}

func TestSet(t *testing.T) {
	// A range of numbers far away from what the test process has open.
	const first = 700
	r, w, err := os.Pipe()
	assert.NilError(t, err)
	defer r.Close()
	defer w.Close()
	for i := range 4 {
		withRaw(t, r, func(fd int) { assert.NilError(t, unix.Dup3(fd, first+i, 0)) }) // the description is non-blocking
	}
	blocking, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	assert.NilError(t, err)
	assert.NilError(t, unix.Dup3(blocking, first+4, 0))
	unix.Close(blocking)
	env := map[string]string{"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDS": "5", "LISTEN_FDNAMES": "a:b:a:c:blocking"}
	s, err := receive(func(k string) string { return env[k] }, first)
	assert.NilError(t, err)

	for i := range 5 {
		flags, err := unix.FcntlInt(first+uintptr(i), unix.F_GETFD, 0)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(flags, unix.FD_CLOEXEC))
		status, err := unix.FcntlInt(first+uintptr(i), unix.F_GETFL, 0)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(status&unix.O_NONBLOCK != 0, i < 4), "O_NONBLOCK is as it was")
	}
	assert.Check(t, is.DeepEqual(s.Names(), []string{"a", "b", "blocking", "c"}))
	one := s.Take("a")
	assert.Check(t, is.Equal(one.Name(), "a"))
	assert.Check(t, s.Take("z") == nil)
	assert.Check(t, is.Len(s.TakeAll("a"), 1))
	assert.Check(t, is.Len(s.TakeAll("a"), 0))

	// In the poller: a deadline works, and Close ends a Read.
	assert.NilError(t, one.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, err = one.Read(make([]byte, 1))
	assert.Check(t, is.ErrorIs(err, os.ErrDeadlineExceeded))
	assert.NilError(t, one.SetReadDeadline(time.Time{}))
	time.AfterFunc(10*time.Millisecond, func() { one.Close() })
	_, err = one.Read(make([]byte, 1))
	assert.Check(t, is.ErrorIs(err, os.ErrClosed))

	assert.NilError(t, s.Close())
	assert.NilError(t, s.Close())
	_, err = unix.FcntlInt(first+1, unix.F_GETFD, 0)
	assert.Check(t, is.ErrorIs(err, unix.EBADF))
	assert.Check(t, is.Len(s.Names(), 0))
}

func TestReceiveBadDescriptor(t *testing.T) {
	env := map[string]string{"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}
	_, err := receive(func(k string) string { return env[k] }, 900)
	assert.Check(t, is.ErrorIs(err, unix.EBADF))
}

// TestReceive runs this test binary with descriptors passed as systemd does it.
func TestReceive(t *testing.T) {
	if os.Getenv("FDSTORE_TEST_CHILD") != "" {
		receiveChild()
		return
	}
	self, err := os.Executable()
	assert.NilError(t, err)
	// The process ID is known only to the shell that becomes the child.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", self, "-test.run=^TestReceive$")
	cmd.ExtraFiles = openFiles(t, 2)
	cmd.Env = append(os.Environ(), "FDSTORE_TEST_CHILD=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=lrd.socket:x.stdout", "LISTEN_PIDFDID=1")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, string(out))
	assert.Check(t, is.Contains(string(out), "names=[lrd.socket x.stdout] again=true environment=[]"))
}

// What came another way is like what systemd passed.
func TestAdd(t *testing.T) {
	s := &Set{files: map[string][]*os.File{}}
	f := openFiles(t, 1)[0]
	assert.Check(t, !s.Has("x.console"))
	s.Add("x.console", f)
	assert.Check(t, s.Has("x.console"))
	assert.Check(t, is.DeepEqual(s.Names(), []string{"x.console"}))
	assert.Check(t, s.Take("x.console") == f)
	assert.Check(t, !s.Has("x.console"))
}

func receiveChild() {
	s, err := Receive()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, again := Receive()
	var left []string
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			left = append(left, v)
		}
	}
	fmt.Printf("names=%v again=%v environment=%v\n", s.Names(), errors.Is(again, ErrReceived), left)
	os.Exit(0)
}

func withRaw(t *testing.T, f *os.File, use func(fd int)) {
	c, err := f.SyscallConn()
	assert.NilError(t, err)
	assert.NilError(t, c.Control(func(fd uintptr) { use(int(fd)) }))
}
