//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a docker client in a terminal of its own, and a person at it.
type terminal struct {
	t    *testing.T
	pty  *os.File
	cmd  *exec.Cmd
	done chan struct{} // closed when everything is read and the client has ended
	code int           // its exit code, once done

	// mu guards what follows.
	mu   sync.Mutex
	all  bytes.Buffer
	seen int // how far expect has come in all
}

// terminalLimit is how long an answer may take.
const terminalLimit = patience * 30 * time.Second

// atTerminal runs the docker client in a terminal of 24 rows and 80 columns.
func (l *lab) atTerminal(args ...string) *terminal {
	l.t.Helper()
	tm := &terminal{t: l.t, cmd: l.dockerCmd(args...), done: make(chan struct{})}
	var err error
	if tm.pty, err = pty.StartWithSize(tm.cmd, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		l.t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	go func() {
		defer close(tm.done)
		buf := make([]byte, 1<<15)
		for {
			n, err := tm.pty.Read(buf)
			tm.mu.Lock()
			tm.all.Write(buf[:n])
			tm.mu.Unlock()
			if err != nil { // EIO: nobody has the other end any more
				break
			}
		}
		var exit *exec.ExitError
		if err := tm.cmd.Wait(); errors.As(err, &exit) {
			tm.code = exit.ExitCode()
		}
	}()
	l.t.Cleanup(tm.close)
	return tm
}

// attach is a terminal at a container with a shell, at its prompt.
func (l *lab) attach(name string) *terminal {
	l.t.Helper()
	tm := l.atTerminal("attach", name)
	tm.shell("")
	return tm
}

// text is all that was shown so far.
func (tm *terminal) text() string {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return tm.all.String()
}

// send types.
func (tm *terminal) send(text string) {
	tm.t.Helper()
	if _, err := tm.pty.WriteString(text); err != nil {
		tm.t.Fatalf("typing %q: %v", text, err)
	}
}

// expect waits for text after what was expected last.
func (tm *terminal) expect(text string) {
	tm.t.Helper()
	for deadline := time.Now().Add(terminalLimit); ; time.Sleep(10 * time.Millisecond) {
		tm.mu.Lock()
		at := bytes.Index(tm.all.Bytes()[tm.seen:], []byte(text))
		if at >= 0 {
			tm.seen += at + len(text)
		}
		rest := string(tm.all.Bytes()[tm.seen:])
		tm.mu.Unlock()
		if at >= 0 {
			return
		}
		if time.Now().After(deadline) {
			tm.t.Fatalf("%q is not in %q", text, rest)
		}
	}
}

// types types a line, and waits for what the answer has and the question has not.
func (tm *terminal) types(line, want string) {
	tm.t.Helper()
	tm.send(line + "\r")
	tm.expect(want)
}

// shell types a command into a shell and waits until it has ended. A client
// needs a moment until it is attached, and nobody hears what is typed before: so
// the first one is typed again until there is an answer.
func (tm *terminal) shell(command string) {
	tm.t.Helper()
	if command != "" {
		// The two strings make the answer differ from the question's echo.
		tm.send(command + "; echo rea''dy=$?.\r")
		tm.expect("ready=")
		return
	}
	for deadline := time.Now().Add(terminalLimit); ; {
		tm.send("echo atta''ched\r")
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			tm.mu.Lock()
			at := bytes.LastIndex(tm.all.Bytes()[tm.seen:], []byte("attached"))
			tm.mu.Unlock()
			if at >= 0 {
				// One that was typed again may be answered yet: what follows is told from it by its own answer.
				tm.shell("true")
				return
			}
		}
		if time.Now().After(deadline) {
			tm.t.Fatalf("no answer from the shell: %q", tm.text())
		}
	}
}

// sleeps types a sleep of so many seconds into a shell that has job control, and waits until it has the terminal: a key
// that makes a signal is the shell's before. No other shell of the lab may have one there.
func (tm *terminal) sleeps(l *lab, seconds int) {
	tm.t.Helper()
	tm.send(fmt.Sprintf("sleep %d\r", seconds))
	tm.expect(fmt.Sprintf("sleep %d", seconds))
	l.in(tm.t).foreground(fmt.Sprintf("sleep %d", seconds))
}

// losesJob gives the shell a job that is stopped, and kills it. The shell has taken note when it returns: one that has a job does not
// leave at once.
func (tm *terminal) losesJob(l *lab) {
	tm.t.Helper()
	tm.sleeps(l, 1001)
	tm.send("\x1a")
	tm.expect("Stopped")
	tm.shell("kill -KILL %%; until jobs >/jobs; [ ! -s /jobs ]; do usleep 10000; done")
}

// foreground waits until a command has the terminal that it was started at: its process group is the terminal's.
func (l *lab) foreground(command string) {
	l.t.Helper()
	l.eventually(terminalLimit/patience, command+" has its terminal", func() bool {
		for line := range strings.Lines(l.exec("ps", "-eo", "pgid=,tpgid=,stat=,args=")) {
			f := strings.Fields(line)
			if f[0] == f[1] && !strings.HasPrefix(f[2], "T") && strings.Join(f[3:], " ") == command {
				return true
			}
		}
		return false
	})
}

// resize changes the terminal's size, which tells the client.
func (tm *terminal) resize(rows, cols uint16) {
	tm.t.Helper()
	if err := pty.Setsize(tm.pty, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		tm.t.Fatal(err)
	}
}

// detach types Docker's keys for leaving a container alone.
func (tm *terminal) detach() {
	tm.t.Helper()
	tm.send("\x10\x11")
	tm.wait() // its exit code differs between `docker run` and `docker attach`
	tm.expect("read escape sequence")
}

// wait waits for the client's end, and gives back its exit code.
func (tm *terminal) wait() int {
	tm.t.Helper()
	select {
	case <-tm.done:
		return tm.code
	case <-time.After(terminalLimit):
		tm.t.Fatal("the client does not end")
		return -1
	}
}

// close ends the client, however it is.
func (tm *terminal) close() {
	_ = tm.cmd.Process.Kill()
	<-tm.done
	_ = tm.pty.Close()
}
