//go:build integration

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// names asks from inside of a container what a name stands for; the addresses are sorted, and there are none for a name that
// nobody has.
func (l *lab) names(from, name string) string {
	l.t.Helper()
	r := l.tryDocker("exec", from, "nslookup", "-type=a", name)
	var found []string
	_, answer, _ := strings.Cut(r.stdout, "\n\n") // behind who was asked
	for line := range strings.Lines(answer) {
		if address, ok := strings.CutPrefix(line, "Address: "); ok {
			found = append(found, strings.TrimSpace(address))
		}
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), " ")
}

// address is a container's address in a network.
func (l *lab) address(container, network string) string {
	l.t.Helper()
	return l.docker("inspect", "--format", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), container)
}

// resolves waits until a name stands for addresses. What a unit's script has noted takes a moment to be read.
func (l *lab) resolves(from, name string, addresses ...string) {
	l.t.Helper()
	slices.Sort(addresses)
	want := strings.Join(addresses, " ")
	for deadline := time.Now().Add(patience * 20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := l.names(from, name)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s is %q to %s, and not %q", name, got, from, want)
		}
	}
}

func TestNetworksOfUsers(t *testing.T) {
	t.Parallel()
	l := boot(t)
	before := l.networkState()
	l.docker("network", "create", "--label", "of=test", "front")
	l.docker("network", "create", "--internal", "--subnet", "10.99.0.0/24", "--gateway", "10.99.0.254", "--ip-range", "10.99.0.128/25", "back")
	sleep := func(name string, flags ...string) {
		t.Helper()
		l.docker(append(append([]string{"run", "--detach", "--name", name}, flags...), "busybox", "sleep", "10000")...)
	}
	sleep("web", "--network", "front", "--network-alias", "www", "--add-host", "other:192.0.2.1", "--publish", "8080:80")
	sleep("db", "--network", "back", "--ip", "10.99.0.7", "--hostname", "data")
	l.docker("network", "connect", "--alias", "shop", "back", "web")

	web, db := l.address("web", "back"), l.address("db", "back")
	assert.Equal(t, db, "10.99.0.7")
	assert.Equal(t, web, "10.99.0.128")
	l.resolves("db", "web", web)
	l.resolves("db", "shop", web)
	l.resolves("db", "www")
	l.resolves("web", "data.back", db)
	l.resolves("web", "www", l.address("web", "front"))
	sleep("shopper", "--network", "back", "--link", "db:store")
	l.resolves("shopper", "store", db)
	l.resolves("db", "store")
	l.refused(125, []string{"links are not supported in the default network"}, "run", "--rm", "--link", "db:store", "busybox", "true")
	l.docker("rm", "--force", "shopper")
	assert.Check(t, is.Contains(l.once("--network front --dns-search example.org --dns-option rotate", "cat /etc/resolv.conf"), "nameserver 127.0.0.11\nsearch example.org\noptions rotate ndots:0"))
	assert.Check(t, is.Contains(l.docker("exec", "web", "cat", "/etc/hosts"), "192.0.2.1\tother"))
	assert.Check(t, is.Contains(l.docker("exec", "web", "cat", "/etc/hosts"), web+"\t"), "the file of a running container is not up to date")
	l.refused(1, []string{"error while removing network: network back has active endpoints"}, "network", "rm", "back")
	l.refused(125, []string{"Address already in use"}, "run", "--rm", "--network", "back", "--ip", "10.99.0.7", "busybox", "true")
	l.refused(1, []string{"already exists in network back"}, "network", "connect", "back", "web")
	assert.Check(t, is.Contains(l.docker("network", "inspect", "back"), `"IPv4Address": "10.99.0.7/24"`))
	assert.Equal(t, l.docker("ps", "--filter", "network=back", "--format", "{{.Names}}"), "db\nweb")

	// Whatever becomes of the daemon, of the resolver, of the bridge and of the rules.
	bridge := l.exec("sh", "-c", "ip -o -4 addr show | awk '/10.99.0.254/ { print $2 }'")
	for what, happens := range map[string]func(){
		"restart":         l.restart,
		"kill":            l.kill9,
		"resolver killed": func() { l.exec("systemctl", "kill", "--signal=KILL", "lrd-dns.service") },
		"bridge gone":     func() { l.stop(); l.exec("ip", "link", "del", bridge); l.start() },
		"rules flushed":   func() { l.exec("nft", "flush", "ruleset"); assert.NilError(t, l.reload()) },
		"nftables.service restarted, with the drop-in of docs/networks.md": func() {
			l.writeFile("/etc/systemd/system/nftables.service.d/lrd.conf", "[Service]\nExecStartPost=-/usr/bin/systemctl --no-block try-reload-or-restart lrd.service\n")
			l.exec("systemctl", "daemon-reload")
			l.exec("systemctl", "restart", "nftables.service")
			l.eventually(20*time.Second, "the rules are back", func() bool { return l.tryExec("nft", "list", "table", "inet", "lrd").code == 0 })
		},
	} {
		happens()
		l.resolves("db", "shop", web)
		assert.Check(t, is.Contains(l.docker("exec", "db", "ping", "-c", "1", "-w", "5", "web"), "1 packets received"), what)
		assert.Check(t, is.Contains(l.exec("nft", "list", "table", "inet", "lrd"), "tcp . 8080"), what)
	}
	assert.Equal(t, l.address("web", "back"), web)

	// What ends while the daemon is away is told of no more, what systemd starts again is.
	sleep("phoenix", "--network", "back", "--restart", "always")
	sleep("mortal", "--network", "back")
	phoenix, mortal := l.address("phoenix", "back"), l.address("mortal", "back")
	l.resolves("db", "mortal", mortal)
	unit := func(name string) string {
		return "lrd-" + l.docker("inspect", "--format", "{{.Id}}", name) + ".service"
	}
	units := []string{unit("phoenix"), unit("mortal")}
	asker := l.docker("inspect", "--format", "{{.State.Pid}}", "db")
	l.stop()
	l.exec("systemctl", "kill", "--signal=KILL", "--kill-who=main", units[0], units[1])
	inside := func(name string) bool {
		return l.tryExec("nsenter", "--net=/proc/"+asker+"/ns/net", "busybox", "nslookup", "-type=a", name, "127.0.0.11").code == 0
	}
	l.eventually(20*time.Second, "the one that ended has no name", func() bool { return !inside("mortal") })
	l.eventually(20*time.Second, "the one that was started again has its name", func() bool { return inside("phoenix") })
	l.start()
	l.resolves("db", "phoenix", phoenix)
	l.resolves("db", "mortal")

	l.docker("rename", "phoenix", "bird")
	l.resolves("db", "bird", phoenix)
	l.resolves("db", "phoenix")
	l.refused(1, []string{"No such container: gone"}, "network", "disconnect", "back", "gone")
	l.refused(1, []string{"endpoint gone not found"}, "network", "disconnect", "--force", "back", "gone")
	l.docker("network", "disconnect", "--force", "back", "web")
	l.resolves("db", "shop")
	assert.Check(t, !strings.Contains(l.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", "web"), "back"))
	l.docker("rm", "--force", "web", "db", "bird", "mortal")
	assert.Equal(t, l.docker("network", "prune", "--force", "--filter", "label=of"), "Deleted Networks:\nfront")
	l.docker("network", "rm", "back")
	for _, e := range []string{"create", "connect", "disconnect", "destroy"} {
		l.eventually(10*time.Second, e+" is an event", func() bool { // the second that is not over is not asked for
			return strings.Contains(l.docker("events", "--since", "1h", "--until", "0s", "--filter", "type=network", "--filter", "event="+e, "--format", "{{.Actor.Attributes.name}}"), "back")
		})
	}
	l.assertClean()
	assert.Equal(t, l.networkState(), before)
}

// networkState is what lrd has on the host's network: links and rules.
func (l *lab) networkState() string {
	l.t.Helper()
	return l.exec("sh", "-c", "ip -brief link | cut -d' ' -f1; nft list table inet lrd")
}

// TestManyNames: containers on two networks that come and go find each other, and no others, over restarts of the daemon.
func TestManyNames(t *testing.T) {
	t.Parallel()
	l := boot(t)
	before := l.networkState()
	n := rounds(t, 8, 100)
	l.docker("network", "create", "even")
	l.docker("network", "create", "odd")
	network := func(i int) string { return []string{"even", "odd"}[i%2] }
	name := func(i int) string { return fmt.Sprintf("c%d", i) }
	// A third of them is one service: more than thirty addresses do not fit into the answer that the busybox asks for.
	serves := func(i int) bool { return i%3 == 0 }
	start := func(first, last int) {
		t.Helper()
		for i := first; i < last; i++ {
			args := []string{"run", "--detach", "--name", name(i), "--network", network(i), "--publish", "80"}
			if serves(i) {
				args = append(args, "--network-alias", "all")
			}
			l.docker(append(args, "busybox", "sleep", "10000")...)
		}
	}
	alive := map[int]bool{}
	check := func(when string) {
		t.Helper()
		var running []string
		for i := range alive {
			running = append(running, name(i))
		}
		// What each has: an address, and a port of the host.
		places := l.docker(append([]string{
			"inspect", "--format",
			"{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}",
		}, running...)...)
		owner, address := map[string]string{}, map[string]string{}
		for line := range strings.Lines(places) {
			fields := strings.Fields(line)
			address[fields[0][1:]] = fields[1]
			for _, what := range fields[1:] {
				assert.Check(t, owner[what] == "", "%s: %s has %s, which is %s's", when, fields[0], what, owner[what])
				owner[what] = fields[0]
			}
		}
		want := [2]string{}
		for i := range 2 {
			var all []string
			for other := range n + n/2 {
				if alive[other] && network(other) == network(i) {
					want[i] += name(other) + " " + address[name(other)] + "\n"
					if serves(other) {
						all = append(all, address[name(other)])
					}
				}
			}
			l.resolves(name(i), "all", all...)
		}
		for i := range 2 {
			// Asked for all names that there have ever been, it gets those of its network that are.
			var got string
			defer func() {
				if t.Failed() {
					t.Logf("%s, %s was answered:\n%s", when, name(i), got)
				}
			}()
			l.eventually(20*time.Second, name(i)+" finds all and no more", func() bool {
				got = l.docker("exec", name(i), "sh", "-c", fmt.Sprintf(
					`for i in $(seq 0 %d); do nslookup -type=a c$i | awk -v n=c$i '/^Address: / { print n, $2 }'; done`, n+n/2-1))
				return got == strings.TrimSpace(want[i])
			})
		}
	}
	start(0, n)
	for i := range n {
		alive[i] = true
	}
	check("at first")
	for round := range rounds(t, 2, 5) {
		// Some go, some of them while the daemon is away, and others come.
		var gone []string
		for i := range alive {
			if i > 1 && len(gone) < n/4 {
				gone = append(gone, name(i))
				delete(alive, i)
			}
		}
		if round%2 == 0 {
			l.stop()
			for _, c := range gone {
				l.exec("sh", "-c", "systemctl kill --signal=KILL --kill-who=main $(systemctl list-units --plain --no-legend 'lrd-*.service' | awk '/ "+c+" \\(/ { print $1 }')")
			}
			l.start()
		} else {
			l.kill9()
		}
		l.docker(append([]string{"rm", "--force"}, gone...)...)
		for i := range n + n/2 {
			if !alive[i] && len(alive) < n {
				start(i, i+1)
				alive[i] = true
			}
		}
		check(fmt.Sprint("round ", round))
	}
	l.removeAll()
	l.docker("network", "rm", "even", "odd")
	l.assertClean()
	assert.Equal(t, l.networkState(), before)
}
