package sessions

import (
	"context"
	"errors"
	"io"
	"syscall"

	"lrd/internal/output"
)

// readSize is how much input is looked at at once.
const readSize = 16 << 10

// writeSize is how much input is written at once: what a pipe takes as a whole (PIPE_BUF, pipe(7)), and what a
// terminal holds.
const writeSize = 4096

// errOver says that a pump stopped because the session is over.
var errOver = errors.New("the session is over")

// input carries what the client sends to the container.
func (r *run) input() {
	err := r.copyInput()
	switch {
	case errors.Is(err, errDetach):
		r.end(EndDetached, nil)
		return
	case errors.Is(err, errOver):
		return
	case err != nil:
		// Reading failed: the client is gone, or the session is over.
		r.clientGone()
		return
	}

	// The client's end of input. One that sends none anyway may close this side at once.
	s := r.streams
	switch {
	case s.Stdin == nil:
	case s.StdinOnce && !s.TTY && s.StandIn:
	case s.StdinOnce && !s.TTY:
		// A SIGKILL before the note makes the next process close it again, which does nothing.
		_ = s.Stdin.Close()
		r.state.update(func(rec *record) { rec.inputEnded = true })
	default:
		r.end(EndDetached, nil)
		return
	}
	r.conn.awaitGone()
	r.end(EndGone, nil)
}

// clientGone ends the session of a client that vanished, and with it the input of a container whose input is
// that client.
func (r *run) clientGone() {
	r.end(EndGone, nil)
	if s := r.streams; r.why == EndGone && s.Stdin != nil && s.StdinOnce && !s.TTY && !s.StandIn {
		_ = s.Stdin.Close()
	}
}

// copyInput returns nil at the client's end of input, errDetach for the detach keys, otherwise why reading
// failed. Once the container takes no more, the rest is thrown away: output may still be on its way, and the
// client must not be reset.
//
// A planned stop comes between two steps, each of which is on record when it is done: every byte is passed on
// once. A SIGKILL loses nothing. What it may double is the input that was being passed on: nothing where the
// kernel splices (no TTY), otherwise the one read that was saved and not yet taken (at most readSize), or the
// one write that was not yet on record (at most writeSize).
func (r *run) copyInput() error {
	rec := r.state.get()
	if rec.inputEnded {
		return nil
	}
	detached := errors.Join(r.early, r.takeEarly())
	stdin := &sink{run: r, w: r.streams.Stdin}
	if r.streams.Stdin == nil {
		stdin.w = nil
	}
	detect := r.detector()
	if err := stdin.flush(); err != nil {
		return err
	}
	if detached != nil {
		return detached
	}
	if pipe, ok := r.streams.Stdin.(PipeInput); ok && !r.streams.TTY {
		if err := r.spliceInput(stdin, pipe); err != errNoSplice { //nolint:errorlint // never wrapped
			return err
		}
	}
	in := make([]byte, readSize)
	for {
		n, err := r.conn.peek(in)
		if errors.Is(err, io.EOF) {
			r.state.setInput(detect.rest(), 0)
			return stdin.flush()
		}
		if err != nil {
			return err
		}
		out, detached := detect.pass(nil, in[:n])
		r.conn.tick()
		r.state.setInput(out, detect.n)
		if err := r.conn.consume(in[:n]); err != nil {
			return err
		}
		if err := stdin.flush(); err != nil {
			return err
		}
		if detached != nil {
			return detached
		}
	}
}

// detector looks for the detach keys where the process before left off.
func (r *run) detector() *detector {
	var keys []byte
	if r.streams.TTY {
		keys = r.streams.DetachKeys
	}
	d := newDetector(keys)
	d.resume(r.state.get().held)
	return d
}

// takeEarly puts on record what net/http had read of the input. It returns errDetach if the keys were in it.
func (r *run) takeEarly() error {
	early := r.conn.early
	if len(early) == 0 {
		return nil
	}
	r.conn.early = nil
	detect := r.detector()
	out, detached := detect.pass(nil, early)
	r.state.setInput(out, detect.n)
	return detached
}

// errNoSplice says that input is to be copied.
var errNoSplice = errors.New("input cannot be spliced")

// spliceInput is copyInput by splice(2).
func (r *run) spliceInput(stdin *sink, to PipeInput) error {
	// First of all somebody has to send something: the pipe of a container that has not been started is not there yet.
	one := make([]byte, 1)
	if _, err := r.conn.peek(one); err != nil {
		return eofIsNil(err)
	}
	raw, err := to.Pipe()
	if err != nil {
		if r.over() {
			return errOver
		}
		stdin.w = nil
		return errNoSplice // and thrown away
	}
	for {
		if _, err := r.conn.peek(one); err != nil {
			return eofIsNil(err)
		}
		err := r.conn.splice(raw)
		switch {
		case err == nil:
		case r.over():
			return errOver
		case errors.Is(err, syscall.EINVAL):
			return errNoSplice
		default:
			stdin.w = nil
			return errNoSplice
		}
	}
}

func eofIsNil(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sink is where input goes.
type sink struct {
	run *run
	w   io.Writer // nil: nowhere
}

// flush writes the input that was read. Its error is that the session is over.
func (s *sink) flush() error {
	st := s.run.state
	for {
		in := st.unwritten()
		if len(in) == 0 {
			return nil
		}
		n := min(len(in), writeSize)
		if s.w != nil {
			s.run.conn.tick()
			var err error
			n, err = s.w.Write(in[:n])
			s.run.conn.tick()
			if err != nil && !s.run.over() {
				s.w = nil // the container takes no more
				continue
			}
			if n > 0 {
				st.update(func(rec *record) { rec.inSent += uint32(n) })
			}
			if err != nil {
				return errOver
			}
			continue
		}
		st.update(func(rec *record) { rec.inSent += uint32(n) })
	}
}

// output carries what is followed to the client.
//
// A piece is on record before any of it is sent, with the place in the source behind it, and what is sent of it
// is on record after each write(2): a planned stop, which comes between the two, costs nothing. A SIGKILL
// loses nothing either; it doubles the one write(2) that was made and not yet on record, if it hits just then.
// As a piece is no larger than what a unix socket takes at once, that is a whole piece: the stream stays well formed.
func (r *run) output(ctx context.Context) {
	s := r.streams
	if o, ok := s.Output.(releaser); ok {
		defer o.release()
	}
	if r.send() != nil {
		return
	}
	switch {
	case r.state.get().over:
		r.end(EndExited, nil)
		return
	case s.Output == nil:
		select {
		case <-s.Done:
			r.end(EndExited, nil)
		case <-ctx.Done():
		}
		return
	}
	p := producer{run: r, piece: newPiece(r.framing, r.conn.atomic()), skip: r.state.get().skip}
	p.piece.whole = s.Whole
	for {
		err := p.fill(ctx)
		if !p.piece.empty() {
			r.conn.tick()
			r.state.setOutput(p.piece.bytes(), p.at, p.done, false)
			p.piece.reset()
			if r.send() != nil {
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			r.conn.tick()
			r.state.setOutput(r.framing.end(), p.at, 0, true)
			if r.send() == nil {
				r.end(EndExited, nil)
			}
			return
		case ctx.Err() != nil:
			return
		default:
			r.end(EndFailed, err)
			return
		}
	}
}

// send sends what is left of the piece. After an error there is nothing more to send.
func (r *run) send() error {
	for {
		left := r.state.unsent()
		if len(left) == 0 {
			return nil
		}
		n, err := r.conn.writeOnce(left)
		if n > 0 {
			r.state.update(func(rec *record) { rec.outSent += uint32(n) })
		}
		if err != nil {
			r.end(EndGone, nil) // if the session is over already, this changes nothing
			return err
		}
	}
}

// producer makes pieces of a source.
type producer struct {
	run   *run
	piece *piece

	at   Cursor // before the item at hand
	item output.Chunk
	done int64 // how much of the item is in pieces
	skip int64 // how much of what comes first was sent by another process
}

// fill makes a piece of what is there, or waits for something. Its error is the source's; there may be a piece
// all the same.
func (p *producer) fill(ctx context.Context) error {
	for {
		for rest := p.item.Data[min(p.done, int64(len(p.item.Data))):]; len(rest) > 0; rest = p.item.Data[p.done:] {
			n := p.piece.add(p.item.Stream, rest)
			if n == 0 {
				return nil
			}
			p.done += int64(n)
		}
		p.item, p.done = output.Chunk{}, 0
		p.at = cursorOf(p.run.streams.Output)
		wait := ctx
		if !p.piece.empty() {
			wait = expired
		}
		c, err := p.run.streams.Output.Next(wait)
		if wait == expired && errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if !p.wanted(c.Stream) {
			continue
		}
		// Another process may have had the same bytes in larger chunks.
		p.item, p.done = c, min(p.skip, int64(len(c.Data)))
		p.skip -= p.done
	}
}

// wanted says whether the client asked for that stream. Raw output is of no stream.
func (p *producer) wanted(s output.Stream) bool {
	if !p.run.framing.Multiplexed {
		return true
	}
	return s == output.Stdout && p.run.streams.Stdout || s == output.Stderr && p.run.streams.Stderr
}

func cursorOf(s Source) Cursor {
	if p, ok := s.(Placed); ok {
		return p.Cursor()
	}
	return Cursor{}
}

// expired is a context that is done: a Next with it returns what is there, and does not wait.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
