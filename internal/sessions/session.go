package sessions

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"lrd/internal/output"
)

// Source is a position in a container's output.
type Source interface {
	// Next returns the next chunk, whose data is valid until the next call, waiting for it if need be; io.EOF
	// when the run has ended.
	Next(ctx context.Context) (output.Chunk, error)
}

// Streams are the container's side of a session.
type Streams struct {
	// TTY: the output is sent raw, and DetachKeys are looked for.
	TTY bool
	// Output is what the client gets to see; nil for nothing.
	Output Source
	// Stdout and Stderr choose what of Output is sent. With TTY all of it is.
	Stdout, Stderr bool
	// Stdin takes what the client types; nil for nobody. Its Close is called only for the client's end of
	// input, and only with StdinOnce and without TTY.
	Stdin io.WriteCloser
	// StdinOnce: the container's input ends with the client's.
	StdinOnce bool
	// DetachKeys as of [ParseDetachKeys].
	DetachKeys []byte
	// Done is closed when the container's run has ended. Needed where Output is nil; with Output, its io.EOF says so.
	Done <-chan struct{}
	// Release makes a Write to Stdin that waits for the container return. Run calls it once, when the session
	// has ended.
	Release func()
}

// End is why a session ended.
type End int

// The reasons, as drawn in the package's comment.
const (
	EndExited   End = iota // the container's run ended, and all its output was sent
	EndDetached            // the client let go, the container runs
	EndGone                // the client is gone
	EndStopped             // ctx was done
	EndFailed              // the output could not be read
)

func (e End) String() string {
	return [...]string{"exited", "detached", "gone", "stopped", "failed"}[e]
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// frameTime is how long a frame that is being sent when the session ends may take. A client that reads at all
// needs microseconds; one that does not delays the daemon's restart by this much.
const frameTime = 250 * time.Millisecond

// Run joins the client to the container until one of them has enough, and returns why. The error is nil but
// for EndFailed. It owns conn and closes it, and has no goroutine left when it returns.
func Run(ctx context.Context, conn *Conn, s Streams) (End, error) {
	r := &run{conn: conn, streams: s, ended: make(chan struct{})}
	pumping, cancel := context.WithCancel(ctx)

	var pumps sync.WaitGroup
	pumps.Go(r.input)
	pumps.Go(func() { r.output(pumping) })

	select {
	case <-r.ended:
	case <-ctx.Done():
		r.end(EndStopped, nil)
	}
	cancel()
	r.stopPumps(&pumps)
	r.hangUp(ctx)
	return r.why, r.err
}

// run is one session under way.
type run struct {
	conn    *Conn
	streams Streams

	// once guards why and err: the first reason counts, and closes ended.
	once  sync.Once
	ended chan struct{}
	why   End
	err   error
}

func (r *run) end(why End, err error) {
	r.once.Do(func() {
		r.why, r.err = why, err
		close(r.ended)
	})
}

// stopPumps makes both pumps return and waits for them. Deadlines, not Close: the connection is still needed
// for an orderly end. Where the client is to see the end, a frame that is being written gets a moment to
// become whole.
func (r *run) stopPumps(pumps *sync.WaitGroup) {
	_ = r.conn.SetReadDeadline(past)
	if r.why == EndGone {
		_ = r.conn.SetWriteDeadline(past)
	} else {
		_ = r.conn.SetWriteDeadline(time.Now().Add(frameTime))
	}
	if r.streams.Release != nil {
		r.streams.Release()
	}
	pumps.Wait()
}

// hangUp closes the connection, in an orderly way if the client is still there and ctx leaves the time.
func (r *run) hangUp(ctx context.Context) {
	if r.why != EndGone {
		_ = r.conn.SetDeadline(time.Time{})
		r.conn.Finish(ctx)
	}
	r.conn.Close()
}

// input carries what the client sends to the container.
func (r *run) input() {
	err := r.copyInput()
	switch {
	case errors.Is(err, errDetach):
		r.end(EndDetached, nil)
		return
	case err != nil:
		// Reading failed: the client is gone, or the session is over and the deadline passed.
		r.clientGone()
		return
	}

	// The client's end of input. One that sends none anyway may close this side at once.
	s := r.streams
	switch {
	case s.Stdin == nil:
	case s.StdinOnce && !s.TTY:
		_ = s.Stdin.Close()
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
	if s := r.streams; r.why == EndGone && s.Stdin != nil && s.StdinOnce && !s.TTY {
		_ = s.Stdin.Close()
	}
}

// copyInput returns nil at the client's end of input, errDetach for the detach keys, otherwise why reading
// failed. Once the container takes no more, the rest is thrown away: output may still be on its way, and the
// client must not be reset.
func (r *run) copyInput() error {
	var keys []byte
	if r.streams.TTY {
		keys = r.streams.DetachKeys
	}
	detect := newDetector(keys)
	in := make([]byte, 32<<10)
	var out []byte
	stdin := io.Discard
	if r.streams.Stdin != nil {
		stdin = r.streams.Stdin
	}
	for {
		n, err := r.conn.Read(in)
		var detached error
		out, detached = detect.pass(out[:0], in[:n])
		if errors.Is(err, io.EOF) {
			out = append(out, detect.rest()...)
		}
		if len(out) > 0 {
			if _, err := stdin.Write(out); err != nil {
				stdin = io.Discard
			}
		}
		if detached != nil {
			return detached
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// output carries what the container writes to the client.
func (r *run) output(ctx context.Context) {
	s := r.streams
	if s.Output == nil {
		select {
		case <-s.Done:
			r.end(EndExited, nil)
		case <-ctx.Done():
		}
		return
	}
	w := NewWriter(r.conn, !s.TTY)
	for {
		c, err := s.Output.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			r.end(EndExited, nil)
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			r.end(EndFailed, err)
			return
		}
		if !s.TTY && (c.Stream == output.Stdout && !s.Stdout || c.Stream == output.Stderr && !s.Stderr) {
			continue
		}
		if err := w.Write(c); err != nil {
			r.end(EndGone, nil)
			return
		}
	}
}
