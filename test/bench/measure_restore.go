package main

import (
	"fmt"
	"time"

	"github.com/moby/moby/client"
)

// mostOfDocker is how many containers dockerd is restarted with: more take minutes to start, and gigabytes.
const mostOfDocker = 100

// restore measures a restart with running containers: from the command `systemctl restart` to the first answer of
// the API, and to the first list that shows them all running. Podman has no daemon to restart.
func (b *bench) restore() error {
	for _, e := range b.mains() {
		if e.kind == "podman" {
			continue
		}
		if err := b.alone(e); err != nil {
			return err
		}
		have := 0
		for _, n := range b.scale.Restore {
			if e.kind == "docker" && n > mostOfDocker {
				continue
			}
			if err := e.idle(b, have, n); err != nil {
				return err
			}
			have = n
			for range b.scale.Rounds {
				if err := b.restarted(e, n); err != nil {
					return err
				}
			}
		}
		if err := e.clean(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) restarted(e *engine, n int) error {
	unit := map[string]string{"lrd": "lrd.service", "docker": "docker.service"}[e.kind]
	began := time.Now()
	if _, err := b.lab.exec("systemctl", "restart", unit); err != nil {
		return err
	}
	for {
		if _, err := e.api.Ping(b.ctx, client.PingOptions{}); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.table.add(fmt.Sprintf("Restart with %d containers: systemctl restart to the first answer, ms", n), e.name, milliseconds(time.Since(began)), less)
	for {
		list, err := e.api.ContainerList(b.ctx, client.ContainerListOptions{})
		if err == nil && len(list.Items) == n {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.table.add(fmt.Sprintf("Restart with %d containers: systemctl restart to all listed, ms", n), e.name, milliseconds(time.Since(began)), less)
	return nil
}
