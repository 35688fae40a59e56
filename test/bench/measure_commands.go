package main

import (
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// commands measures what a person waits for.
func (b *bench) commands() error {
	return b.each(b.mains(), func(e *engine) error {
		if _, err := e.do("version"); err != nil { // it is up, and podman's service too
			return err
		}
		for n := range b.scale.Times {
			if err := b.once(e, n == 0); err != nil {
				return err
			}
		}
		return e.clean()
	})
}

// once runs each command one time. Podman's rm --force takes ten seconds, so it is measured for the first time only.
func (b *bench) once(e *engine, first bool) error {
	for _, c := range []struct {
		row  string
		args []string
	}{
		{"docker version (the client's own time), ms", []string{"version"}},
		{"docker run -d, ms", []string{"run", "--detach", "--network", "none", "--name", "idle", "bench", "sleep", payloadSeconds}},
		{"docker exec … true, ms", []string{"exec", "idle", "true"}},
		{"docker rm -f, ms", []string{"rm", "--force", "idle"}},
		{"docker run --rm … true, ms", []string{"run", "--rm", "--network", "none", "bench", "true"}},
	} {
		skip := c.args[0] == "rm" && e.kind == "podman" && !first
		if skip {
			if _, err := e.do("kill", "idle"); err != nil {
				return err
			}
		}
		began := time.Now()
		if _, err := e.do(c.args...); err != nil {
			return err
		}
		if !skip {
			b.table.add(c.row, e.name, milliseconds(time.Since(began)), less)
		}
	}
	began := time.Now()
	made, err := e.create(b, "by-api")
	if err != nil {
		return err
	}
	b.table.add("API create, ms", e.name, milliseconds(time.Since(began)), less)
	began = time.Now()
	if _, err := e.api.ContainerStart(b.ctx, made, client.ContainerStartOptions{}); err != nil {
		return err
	}
	b.table.add("API start, ms", e.name, milliseconds(time.Since(began)), less)
	return e.clean()
}

// What an idle container runs; see lab.memory.
const (
	payloadSeconds = "1000000"
	payload        = "sleep " + payloadSeconds
)

// create makes an idle container.
func (e *engine) create(b *bench, name string) (id string, err error) {
	made, err := e.api.ContainerCreate(b.ctx, client.ContainerCreateOptions{
		Name:       name,
		Config:     &container.Config{Image: "bench", Cmd: []string{"sleep", payloadSeconds}},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	return made.ID, err
}

// idle makes and starts idle containers from one number up to another.
func (e *engine) idle(b *bench, from, to int) error {
	for n := from; n < to; n++ {
		id, err := e.create(b, fmt.Sprint("idle-", n))
		if err != nil {
			return err
		}
		if _, err := e.api.ContainerStart(b.ctx, id, client.ContainerStartOptions{}); err != nil {
			return err
		}
	}
	return nil
}
