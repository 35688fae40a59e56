package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lrd/internal/handover"
)

// HandOver is Close for a stop of the daemon after which another process collects the output: pass is given all that
// running containers, and commands in them, have, and calls leave when that process has it; what follows released is a
// container's ID that it may begin with. pass borrows the files. When HandOver returns all is left, whatever pass did.
func (m *Manager) HandOver(pass func(h handover.Holding, leave func(released func(id string))) error) error {
	m.awaitExecStarts()
	m.cancel()
	m.workers.Wait()
	m.stopForwarding()
	all := m.withStreams()
	var h handover.Holding
	defer func() { handover.CloseFiles(h.Files) }()
	var passed []*streams
	for _, s := range all {
		files, err := s.handOver()
		h.Files = append(h.Files, files...)
		dir, options, optionsErr := s.owner.standIn()
		if err := errors.Join(err, optionsErr); err != nil {
			s.owner.logger("stop").Error("Not all of it can be collected while lrd is stopped", "error", err)
		}
		if len(files) == 0 || optionsErr != nil {
			continue
		}
		h.Logs = append(h.Logs, handover.Log{ID: s.id, Dir: dir, Options: options})
		passed = append(passed, s)
	}
	err := pass(h, func(released func(string)) {
		for _, s := range passed {
			if err := s.leave(); err != nil {
				s.owner.logger("stop").Error("Cannot close its output", "error", err)
			}
			released(s.id)
		}
	})
	return errors.Join(err, m.Close())
}

// execStartGrace bounds the wait for commands that are being started; it takes the runtime some 100 ms.
const execStartGrace = 5 * time.Second

// awaitExecStarts waits for the commands that are being started: only what runs can be passed on, and a systemd before 254
// keeps nothing else over a stop.
func (m *Manager) awaitExecStarts() {
	grace := time.After(execStartGrace)
	for _, e := range m.execsIn(nil) {
		if e.snapshot().Phase != execStarting || !e.isLaunched() {
			continue
		}
		select {
		case <-e.started:
		case <-grace:
			return
		}
	}
}

// withStreams are the streams of the runs and the commands that there are.
func (m *Manager) withStreams() []*streams {
	var all []*streams
	for _, c := range m.all() {
		if r, _ := c.snapshot(); r.Run != nil && !c.foreign {
			all = append(all, c.streams)
		}
	}
	for _, e := range m.execsIn(nil) {
		if r := e.snapshot(); r.Phase == execRunning && r.streaming() {
			all = append(all, e.streams)
		}
	}
	return all
}

// handOver returns descriptors, for the caller to close, of all that a run has. No console is taken in from here on:
// one that comes waits in the socket.
func (s *streams) handOver() (files []handover.File, err error) {
	var errs []error
	add := func(what string, f *os.File, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot pass %s: %w", what, err))
			return
		}
		files = append(files, handover.File{Name: fdName(s.id, what), File: f})
	}
	s.mu.Lock()
	consoles := s.consoles
	s.consoles = nil
	s.mu.Unlock()
	if consoles != nil {
		f, err := consoles.File()
		add(fdListener, f, err)
		errs = append(errs, consoles.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, f := range map[string]*os.File{fdStdin: s.stdin, fdConsole: s.console} {
		if f != nil {
			own, err := duplicate(f)
			add(what, own, err)
		}
	}
	for _, what := range []string{fdStdout, fdStderr, fdVia} {
		if f, err := openFIFO(filepath.Join(s.dir, what), 0); !errors.Is(err, fs.ErrNotExist) {
			add(what, f, err)
		}
	}
	return files, errors.Join(errs...)
}
