package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Keeper is what the standby does with what the daemon asks.
type Keeper interface {
	// Hold takes h over, files and all. When it returns nil, it is where a crash does not reach.
	Hold(ctx context.Context, h Holding) error
	// Release is told that the daemon has closed a Log.
	Release(id string)
	// Begin returns when all Logs are drained.
	Begin(ctx context.Context) error
	// Give stops all that is done, and returns all that is held, for the caller to close.
	Give(ctx context.Context) ([]File, error)
	// Taken forgets all that was given.
	Taken(ctx context.Context) error
	// Left goes on with what was given, and not taken.
	Left()
}

// Serve answers one daemon until it goes away, which is no error, or ctx is done. It closes c.
func Serve(ctx context.Context, c *net.UnixConn, k Keeper) error {
	defer c.Close()
	s := &server{conn: conn{c: c}, k: k}
	defer s.conn.until(ctx)()
	err := s.serve(ctx)
	if s.given {
		k.Left()
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

type server struct {
	conn  conn
	k     Keeper
	given bool // and not taken
}

func (s *server) serve(ctx context.Context) error {
	for {
		p, files, err := s.conn.receive()
		if errors.Is(err, errVersion) {
			_ = s.conn.send(packet{Error: err.Error()}, nil)
		}
		if err != nil {
			return err
		}
		if p.Ask == askGive {
			err = s.give(ctx)
		} else if err = s.do(ctx, p, files); p.Ask != askRelease {
			answer := packet{}
			if err != nil {
				answer.Error = err.Error()
			}
			err = s.conn.send(answer, nil)
		}
		if err != nil {
			return err
		}
	}
}

// do does what is answered with a yes or no.
func (s *server) do(ctx context.Context, p packet, files []File) error {
	if p.Ask != askHold {
		CloseFiles(files)
	}
	switch p.Ask {
	case askHold:
		return s.k.Hold(ctx, Holding{Drain: p.Drain, Sessions: p.Sessions, Logs: p.Logs, Files: files})
	case askRelease:
		s.k.Release(p.ID)
		return nil
	case askBegin:
		return s.k.Begin(ctx)
	case askTaken:
		if !s.given {
			return errors.New("nothing was given that could have been taken")
		}
		s.given = false
		return s.k.Taken(ctx)
	}
	return fmt.Errorf("there is no question %q", p.Ask)
}

func (s *server) give(ctx context.Context) error {
	s.given = true
	files, err := s.k.Give(ctx)
	if err != nil {
		return s.conn.send(packet{Error: err.Error()}, nil)
	}
	defer CloseFiles(files)
	for first := true; first || len(files) > 0; first = false {
		n := min(len(files), maxFiles)
		if err := s.conn.send(packet{More: n < len(files)}, files[:n]); err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}
