package networks

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestResolvConf(t *testing.T) {
	const head = "# Made by lrd from the host's resolv.conf and the container's settings.\n"
	const host = "# a comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # ours\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2\noptions rotate\n"
	for _, tc := range []struct {
		name, host string
		options    ResolvOptions
		want       string
	}{
		{
			name: "the host's without what cannot be reached", host: host,
			want: "nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2 rotate\n",
		},
		{
			name: "in the host's network", host: host, options: ResolvOptions{HostNetwork: true},
			want: "nameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2 rotate\n",
		},
		{
			name: "nothing left", host: "nameserver ::1\n",
			want: "nameserver 8.8.8.8\nnameserver 8.8.4.4\n",
		},
		{name: "no file", want: "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{
			name: "all given", host: host,
			options: ResolvOptions{Servers: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Search: []string{"x"}, Options: []string{"debug"}},
			want:    "nameserver 127.0.0.1\nsearch x\noptions debug\n",
		},
		{
			name: "no search", host: "nameserver 192.0.2.53\ndomain a.example\n", options: ResolvOptions{Search: []string{"."}},
			want: "nameserver 192.0.2.53\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, string(ResolvConf([]byte(tc.host), tc.options)), head+tc.want)
		})
	}
}

func TestHosts(t *testing.T) {
	ip, gateway := netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("172.30.0.1")
	for _, tc := range []struct {
		options HostsOptions
		want    string
	}{
		{HostsOptions{}, ""},
		{HostsOptions{Hostname: "h", IPs: []netip.Addr{ip, {}}}, "172.30.0.2\th\n"},
		{HostsOptions{Hostname: "h", Domainname: "d.example", IPs: []netip.Addr{ip, {}}}, "172.30.0.2\th.d.example h\n"},
		{
			HostsOptions{Hostname: "h", IPs: []netip.Addr{ip, {}}, HostGateway: gateway, ExtraHosts: []string{"db:192.0.2.1", "six=[2001:db8::1]", "six2:2001:db8::2", "me:host-gateway"}},
			"192.0.2.1\tdb\n2001:db8::1\tsix\n2001:db8::2\tsix2\n172.30.0.1\tme\n172.30.0.2\th\n",
		},
	} {
		got, err := Hosts(tc.options)
		assert.NilError(t, err)
		assert.Equal(t, string(got), baseHosts+tc.want)
	}
	for want, entry := range map[string]string{
		"bad format for add-host":                              "nothing",
		"invalid IP address in add-host":                       "db:nowhere",
		"unable to derive the IP value for host-gateway":       "me:host-gateway",
		`bad format for add-host: "a b:192.0.2.1"`:             "a b:192.0.2.1",
		"bad format for add-host: \"x\\n192.0.2.9:192.0.2.1\"": "x\n192.0.2.9:192.0.2.1",
	} {
		_, err := Hosts(HostsOptions{ExtraHosts: []string{entry}})
		assert.Check(t, cmp.ErrorContains(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
}
