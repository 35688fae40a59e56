//go:build integration

package integration

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// project is a database, a web server and a client: two networks, a volume, an order that depends on health.
const project = `
version: "2.4"
services:
  db:
    image: busybox
    command: sh -c "mkdir -p /data/www && echo rows > /data/www/table && sleep 1 && touch /data/ready && exec httpd -f -p 5432 -h /data/www"
    volumes: [data:/data]
    networks: [back]
    healthcheck:
      test: ["CMD", "test", "-e", "/data/ready"]
      interval: 1s
      timeout: 5s
      retries: 30
  web:
    image: busybox
    command: sh -c "mkdir -p /www && wget -qO /www/index.html http://db:5432/table && echo serving && exec httpd -f -h /www"
    depends_on:
      db: {condition: service_healthy}
    networks:
      front: {}
      back: {}
    ports: ["8080:80"]
    restart: always
  client:
    image: busybox
    command: sh -c "until wget -qO- http://web; do sleep 1; done; exec sleep 10000"
    depends_on: [web]
    networks: [front]
networks:
  front: {}
  back: {internal: true}
volumes:
  data: {}
`

// compose is docker-compose in the lab: 1.29 of Debian 12, 2.26 of Debian 13.
func (l *lab) compose(args ...string) string {
	l.t.Helper()
	return l.must("docker-compose "+strings.Join(args, " "), l.tryCompose(args...)).stdout
}

func (l *lab) tryCompose(args ...string) result {
	return l.tryExec(append([]string{"env", "DOCKER_HOST=unix:///run/lrd.sock", "HOME=/root", "docker-compose", "--file", "/srv/shop/docker-compose.yml", "--project-name", "shop"}, args...)...)
}

func TestCompose(t *testing.T) {
	t.Parallel()
	l := boot(t)
	before := l.networkState()
	l.writeFile("/srv/shop/docker-compose.yml", project)
	l.compose("up", "--detach", "--scale", "client=2")
	served := func(when string) {
		t.Helper()
		l.eventually(30*time.Second, "the project serves "+when, func() bool {
			return l.tryExec("curl", "-fsS", "--max-time", "2", "http://127.0.0.1:8080/").stdout == "rows"
		})
	}
	served("at first")
	l.restart()
	served("after a restart")
	l.eventually(30*time.Second, "both clients have what they want", func() bool {
		return strings.Count(l.tryCompose("logs", "client").stdout, "rows") == 2
	})
	l.kill9()
	served("after a crash")
	ps := l.compose("ps")
	for _, name := range []string{"db", "web", "client"} {
		assert.Check(t, is.Contains(ps, name))
	}
	// The client finds the web server, and not the database, which is on another network.
	assert.Equal(t, l.compose("exec", "-T", "client", "sh", "-c", "wget -qO- http://web && ! nslookup -type=a db >/dev/null"), "rows")
	l.compose("restart", "--timeout", "0", "web")
	served("after a restart of the service")
	l.compose("down", "--volumes", "--timeout", "0")
	assert.Equal(t, l.docker("ps", "--all", "--quiet"), "")
	assert.Equal(t, l.docker("network", "ls", "--filter", "type=custom", "--quiet"), "")
	assert.Equal(t, l.docker("volume", "ls", "--quiet"), "")
	l.assertClean()
	assert.Equal(t, l.networkState(), before)
}
