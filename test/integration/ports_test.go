//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The lab's world outside: a network namespace that is joined to the lab by a link.
const (
	outsideNS   = "outside"
	labAddress  = "198.51.100.1"
	labAddress6 = "2001:db8::1"
)

// world makes the world outside of the lab.
func (l *lab) world() {
	l.t.Helper()
	l.exec("sh", "-ec", `
		ip netns add outside
		ip link add out0 type veth peer name world0 netns outside
		ip address add 198.51.100.1/24 dev out0
		ip address add 2001:db8::1/64 dev out0 nodad
		ip link set out0 up
		ip -n outside address add 198.51.100.2/24 dev world0
		ip -n outside address add 2001:db8::2/64 dev world0 nodad
		ip -n outside link set world0 up`)
}

// TestPortsUnderLoad: a service with published ports answers every request, over restarts, crashes and a stop of the daemon.
func TestPortsUnderLoad(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.copyEcho()
	l.world()
	l.docker("network", "create", "--ipv6", "--subnet", "fd42::/64", "six")
	l.docker("run", "--detach", "--name", "web", "--network", "six", "--publish", "8080:80", "--volume", echoPath+":/echo:ro", "busybox", "/echo", "serve", "http", ":80")
	gateway := l.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "six")
	// Some hundred requests a second from each place: a load, and not a test of how fast the machine is.
	l.writeFile("/srv/steady.lua", "function delay() return 20 end\n")
	places := map[string][]string{
		"loopback":           {"127.0.0.1"},
		"the host":           {gateway},
		"outside":            {labAddress, "ip", "netns", "exec", outsideNS},
		"outside, over IPv6": {"[" + labAddress6 + "]", "ip", "netns", "exec", outsideNS},
	}
	for from, place := range places {
		unit := "wrk-" + strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return '-'
			}
			return r
		}, from)
		l.eventually(20*time.Second, "an answer from "+from, func() bool {
			return l.tryExec(append(place[1:], "curl", "-fsS", "--max-time", "2", "http://"+place[0]+":8080/")...).code == 0
		})
		// Its figures come with SIGINT.
		l.exec(append([]string{"systemd-run", "--quiet", "--collect", "--unit=" + unit, "--property=KillSignal=SIGINT", "--property=StandardOutput=file:/srv/" + unit, "--"},
			append(place[1:], "wrk", "--threads", "1", "--connections", "4", "--duration", "1h", "--timeout", "100s", "--script", "/srv/steady.lua", "http://"+place[0]+":8080/")...)...)
		defer func() {
			l.exec("systemctl", "stop", unit)
			figures := l.readFile("/srv/" + unit)
			t.Logf("from %s: %s", from, strings.Join(strings.Fields(figures), " "))
			assert.Check(t, is.Contains(figures, "requests in"), from)
			assert.Check(t, !strings.Contains(figures, "Socket errors") && !strings.Contains(figures, "Non-2xx"), "from %s: %s", from, figures)
		}()
	}
	for range rounds(t, 3, 10) {
		l.restart()
	}
	for range rounds(t, 3, 10) {
		l.kill9()
	}
	l.stop()
	time.Sleep(time.Duration(rounds(t, 2, 30)) * time.Second)
	l.start()
	// And while other containers come and go, whose rules are made anew each time.
	for i := range 3 {
		l.docker("run", "--rm", "--publish", fmt.Sprint(9000+i, ":80"), "busybox", "true")
	}
}

// TestSocketInAContainer: the API's socket is mounted into a container and is the daemon's there, whatever becomes of that.
func TestSocketInAContainer(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.copyEcho()
	l.docker("run", "--detach", "--name", "tool", "--volume", "/run/lrd.sock:/var/run/docker.sock", "--volume", echoPath+":/echo:ro", "busybox", "sleep", "10000")
	ask := func() string {
		t.Helper()
		return l.docker("exec", "tool", "/echo", "get", "unix", "/var/run/docker.sock", "/containers/json")
	}
	for _, happens := range []func(){func() {}, l.restart, l.kill9, func() { l.stop(); l.start() }} {
		happens()
		assert.Check(t, is.Contains(ask(), `"/tool"`))
	}
}
