//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestFirewalld: beside firewalld, published ports answer and containers reach each other and the world, whatever of the two
// is restarted or reloaded, and whether the other one runs.
//
// firewalld is not in the labs of `make test`: LRD_LAB_PACKAGES=firewalld SUITES=trixie makes one with it.
func TestFirewalld(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("firewall-cmd")
	if here := suite.name == "host" && err == nil; !here && !strings.Contains(os.Getenv("LRD_LAB_PACKAGES"), "firewalld") {
		skip(t, "there is no firewalld in the lab (LRD_LAB_PACKAGES=firewalld makes a lab with it)")
	}
	l := boot(t)
	l.copyEcho()
	l.world()
	// Its rules come a while after the unit has started.
	firewalld := func(verb string) {
		t.Helper()
		l.exec("systemctl", verb, "firewalld")
		l.eventually(20*time.Second, "firewalld has rules", func() bool {
			return l.tryExec("firewall-cmd", "--state").code == 0 && strings.Contains(l.tryExec("nft", "list", "table", "inet", "firewalld").stdout, "lrd*")
		})
	}
	// As a machine has it where somebody is in charge of the interfaces.
	l.exec("ip", "route", "add", "default", "via", "198.51.100.2")
	firewalld("start")
	l.exec("firewall-cmd", "--quiet", "--permanent", "--zone=public", "--add-interface=out0")
	l.exec("systemctl", "stop", "firewalld")
	l.exec("systemd-run", "--quiet", "--", "ip", "netns", "exec", outsideNS, echoPath, "serve", "http", ":7")
	serve := func(name string, flags ...string) {
		t.Helper()
		l.docker(append(append([]string{"run", "--detach", "--name", name, "--volume", echoPath + ":/echo:ro"}, flags...), "busybox", "/echo", "serve", "http", ":80")...)
	}
	serve("web", "--publish", "8080:80")
	serve("other")
	users := func(network string) {
		t.Helper()
		l.docker("network", "create", "--ipv6", network)
		serve(network+"-1", "--network", network, "--publish", "80")
		serve(network+"-2", "--network", network)
	}
	users("app")
	// What it takes for traffic to go on, each way; the answer is the path that was asked for.
	address := func(name string) string {
		return l.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
	}
	port := func(name string) string {
		_, p, _ := strings.Cut(strings.Split(l.docker("port", name, "80/tcp"), "\n")[0], ":")
		return p
	}
	inside := func(name string) []string {
		return []string{"nsenter", "--net=/run/lrd/netns/" + l.docker("inspect", "--format", "{{.Id}}", name)}
	}
	outside := []string{"ip", "netns", "exec", outsideNS}
	check := func(when string, networks ...string) {
		t.Helper()
		ways := map[string][]string{
			"outside → port":         append(outside, "http://198.51.100.1:8080/x"),
			"host → 127.0.0.1":       {"http://127.0.0.1:8080/x"},
			"host → container":       {"http://" + address("web") + "/x"},
			"container → container":  append(inside("other"), "http://"+address("web")+"/x"),
			"container → its port":   append(inside("web"), "http://198.51.100.1:8080/x"),
			"container → outside":    append(inside("web"), "http://198.51.100.2:7/x"),
			"container → the host's": append(inside("other"), "http://198.51.100.1:8080/x"),
		}
		for _, n := range networks {
			ways[n+": outside → port"] = append(outside, "http://198.51.100.1:"+port(n+"-1")+"/x")
			ways[n+": outside → port, IPv6"] = append(outside, "http://[2001:db8::1]:"+port(n+"-1")+"/x")
			ways[n+": container → container"] = append(inside(n+"-2"), "http://"+address(n+"-1")+"/x")
			ways[n+": container → outside"] = append(inside(n+"-1"), "http://198.51.100.2:7/x")
			ways[n+": container → another network's port"] = append(inside(n+"-1"), "http://198.51.100.1:8080/x")
		}
		for way, args := range ways {
			last := len(args) - 1
			cmd := append(append(append([]string{}, args[:last]...), "curl", "-fsS", "--max-time", "5"), args[last])
			r := l.tryExec(cmd...)
			assert.Check(t, r.code == 0 && r.stdout == "/x", "%s: %s: %s", when, way, r)
		}
		// What is not published stays closed.
		assert.Check(t, l.tryExec("ip", "netns", "exec", outsideNS, "curl", "-fsS", "--max-time", "1", "http://"+address("web")+"/").code != 0, when)
	}
	l.exec("ip", "-n", outsideNS, "route", "add", "172.16.0.0/12", "via", labAddress)
	check("without firewalld", "app")

	// A connection that was there before stays, too.
	l.writeFile("/srv/steady.lua", "function delay() return 20 end\n")
	l.exec("systemd-run", "--quiet", "--collect", "--unit=wrk", "--property=KillSignal=SIGINT", "--property=StandardOutput=file:/srv/wrk", "--",
		"ip", "netns", "exec", outsideNS, "wrk", "--threads", "1", "--connections", "4", "--duration", "10m", "--timeout", "10s", "--script", "/srv/steady.lua", "http://198.51.100.1:8080/")
	networks := []string{"app"}
	for round := range rounds(t, 1, 10) {
		for _, step := range []struct {
			what    string
			happens func()
		}{
			{"firewalld started after lrd", func() { firewalld("start") }},
			{"firewalld reloaded", func() { l.exec("firewall-cmd", "--quiet", "--reload") }},
			{"firewalld restarted", func() { firewalld("restart") }},
			{"lrd restarted", l.restart},
			{"lrd killed", l.kill9},
			{"a network made", func() {
				if networks = append(networks, fmt.Sprint("late", round)); round == 0 {
					users(networks[1])
				} else {
					networks = networks[:2]
				}
			}},
			{"reloaded completely", func() { l.exec("firewall-cmd", "--quiet", "--complete-reload") }},
			{"firewalld restarted while lrd is away", func() { l.stop(); firewalld("restart") }},
			{"lrd started after firewalld", l.start},
			{"lrd reloaded", func() { assert.NilError(t, l.reload()) }},
			{"firewalld stopped", func() { l.exec("systemctl", "stop", "firewalld") }},
		} {
			step.happens()
			check(step.what, networks...)
		}
	}
	time.Sleep(100 * time.Millisecond) // for one more of its requests
	l.exec("systemctl", "stop", "wrk")
	figures := l.readFile("/srv/wrk")
	assert.Check(t, is.Contains(figures, "requests in"))
	assert.Check(t, !strings.Contains(figures, "Socket errors") && !strings.Contains(figures, "Non-2xx"), figures)

	// A bridge of another name is not firewalld's to know: lrd says so, and what to do.
	firewalld("start")
	warned := func() string { return l.tryDocker("info").stderr }
	assert.Check(t, !strings.Contains(warned(), "firewalld"))
	l.docker("network", "create", "--opt", "com.docker.network.bridge.name=own0", "own")
	assert.Check(t, is.Contains(warned(), `firewalld has the bridges "own0" in no zone`))
	l.exec("firewall-cmd", "--quiet", "--permanent", "--zone=lrd", "--add-interface=own0")
	l.exec("firewall-cmd", "--quiet", "--reload")
	assert.NilError(t, l.reload())
	assert.Check(t, !strings.Contains(warned(), "firewalld"))
	serve("own-1", "--network", "own", "--publish", "80")
	serve("own-2", "--network", "own")
	check("a bridge of another name", "app")
	assert.Equal(t, l.exec(append(inside("own-2"), "curl", "-fsS", "--max-time", "5", "http://"+address("own-1")+"/x")...), "/x")
}
