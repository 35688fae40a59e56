//go:build integration

package integration

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// ask sends a line to a port of the lab from inside the lab, and gives back the line that it is answered.
// The protocol is tcp, udp or sctp. It needs copyEcho.
func (l *lab) ask(protocol, address string, port int, line string) string {
	return l.tryExec(echoPath, "ask", protocol, fmt.Sprintf("%s:%d", address, port), line).stdout
}

// echoPath is where the lab has testdata/echo.
const echoPath = "/srv/echo"

// copyEcho builds testdata/echo and puts it into the lab.
func (l *lab) copyEcho() {
	l.t.Helper()
	l.copyTool("echo", echoPath)
}

func TestCLINetwork(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("modes", func(t *testing.T, l *lab) {
		assert.Equal(t, l.once("--network none", "ls /sys/class/net"), "lo")
		assert.Equal(t, l.once("--network host", "hostname"), l.exec("hostname"))
		assert.Check(t, is.Contains(l.once("--network host", "ls /sys/class/net"), "lrd0"))
		assert.Equal(t, l.once("", "ls /sys/class/net"), "eth0\nlo")
		assert.Equal(t, l.once("--network bridge", "ls /sys/class/net"), "eth0\nlo")
		id := l.tick("first")
		address := l.docker("inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "first")
		assert.Check(t, is.Contains(l.once("--network container:first", "ip address show eth0"), address+"/"))
		assert.Equal(t, l.once("--network container:first", "hostname"), id[:12])
		assert.Check(t, is.Contains(l.once("", "ping -c 1 -w 5 "+address), "1 packets received"), "from one container to another")
	})

	l.clients("refusals", func(t *testing.T, l *lab) {
		l.refused(1, []string{"nope"}, "network", "inspect", "nope")
		l.refused(125, []string{"network nope not found"}, "run", "--rm", "--network", "nope", "busybox", "true")
		l.refused(1, []string{"operation is not permitted on predefined bridge network"}, "network", "create", "bridge")
		l.refused(125, []string{"nobody"}, "run", "--rm", "--network", "container:nobody", "busybox", "true")
		l.docker("create", "--name", "never", "busybox")
		l.refused(125, []string{"cannot join network of a non running container"}, "run", "--rm", "--network", "container:never", "busybox", "true")
		l.refused(125, []string{"not that of a group"}, "run", "--rm", "--mac-address", "03:42:ac:11:00:99", "busybox", "true")
		assert.Check(t, is.Contains(l.once("--mac-address 02:42:ac:11:00:99", "ip link show eth0"), "02:42:ac:11:00:99"))
		assert.Equal(t, l.docker("network", "ls", "--format", "{{.Name}}"), "bridge\nhost\nnone")
	})

	l.newest("address", func(t *testing.T, l *lab) { // the old client does not even send it
		l.refused(125, []string{"user-specified IP address is supported on user-defined networks only"}, "run", "--rm", "--ip", "10.87.0.77", "busybox", "true")
	})

	l.refused(125, []string{"cannot publish port 80/tcp on [::1]", "use 127.0.0.1"}, "run", "--rm", "--publish", "[::1]:8080:80", "busybox", "true")

	l.newest("sctp", func(t *testing.T, l *lab) {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, syscall.IPPROTO_SCTP)
		if errors.Is(err, syscall.EPROTONOSUPPORT) {
			skip(t, "this kernel has no sctp, so that nobody can ask at such a port")
		}
		assert.NilError(t, err)
		assert.NilError(t, syscall.Close(fd))
		l.copyEcho()
		l.docker("run", "--detach", "--name", "sctp", "--volume", echoPath+":/echo:ro", "--publish", "9999:99/sctp", "busybox", "/echo", "serve", "sctp", ":99")
		bridge := l.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
		for _, address := range []string{"127.0.0.1", bridge} {
			l.eventually(20*time.Second, "sctp answers at "+address, func() bool { return l.ask("sctp", address, 9999, "hello") == "got hello" })
		}
	})

	l.newest("published ports", func(t *testing.T, l *lab) {
		l.copyEcho()
		serve := func(name, protocol, port string, flags ...string) {
			t.Helper()
			args := append([]string{"run", "--detach", "--name", name, "--volume", echoPath + ":/echo:ro"}, flags...)
			l.docker(append(args, "busybox", "/echo", "serve", protocol, ":"+port)...)
		}
		serve("tcp", "tcp", "80", "--publish", "8080:80", "--publish", "127.0.0.1:8081:80")
		serve("udp", "udp", "53", "--publish", "5353:53/udp")
		serve("any", "tcp", "80", "--publish", "80")
		assert.Equal(t, l.docker("port", "tcp", "80"), "0.0.0.0:8080\n127.0.0.1:8081")
		var any int
		_, err := fmt.Sscanf(l.docker("port", "any", "80/tcp"), "0.0.0.0:%d", &any)
		assert.NilError(t, err)
		bridge := l.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge")

		answered := func(when string) {
			t.Helper()
			for _, c := range []struct {
				protocol, address string
				port              int
			}{{"tcp", "127.0.0.1", 8080}, {"tcp", bridge, 8080}, {"tcp", "127.0.0.1", 8081}, {"tcp", "127.0.0.1", any}, {"udp", "127.0.0.1", 5353}, {"udp", bridge, 5353}} {
				l.eventually(20*time.Second, fmt.Sprintf("%s answers at %s:%d, %s", c.protocol, c.address, c.port, when), func() bool {
					return l.ask(c.protocol, c.address, c.port, "hello") == "got hello"
				})
			}
		}
		answered("with lrd")
		l.stop()
		answered("while lrd is stopped")
		assert.Equal(t, l.tryExec("systemctl", "is-active", "lrd").stdout, "inactive")
		l.start()
		answered("after lrd was stopped")
		l.kill9()
		answered("after lrd was killed")
		l.refused(125, []string{"8080"}, "run", "--rm", "--publish", "8080:80", "busybox", "true")
		l.docker("stop", "--time", "0", "tcp")
		assert.Equal(t, l.ask("tcp", "127.0.0.1", 8080, "hello"), "")
		l.docker("start", "tcp")
		answered("after the container was started again")
	})
}
