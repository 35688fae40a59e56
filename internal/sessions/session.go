package sessions

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"
)

// Streams are the container's side of a session.
type Streams struct {
	// TTY: DetachKeys are looked for, and the client's end of input is a detach.
	TTY bool
	// Output is what the client gets to see; nil for nothing.
	Output Source
	// Stdout and Stderr choose what of Output is sent, where the output is multiplexed. Otherwise all of it is.
	Stdout, Stderr bool
	// Whole says that a chunk of Output would be another one if it were asked for again: it is sent in one piece, and
	// is on record as a whole. It may then be no larger than what a piece can take, 60 KiB.
	Whole bool
	// Stdin takes what the client types; nil for nobody. Its Close is called only for the client's end of
	// input, and only with StdinOnce and without TTY. If it is a [PipeInput] too, input is spliced into the pipe.
	Stdin io.WriteCloser
	// StdinOnce: the container's input ends with the client's.
	StdinOnce bool
	// DetachKeys as of [ParseDetachKeys].
	DetachKeys []byte
	// Done is closed when the container's run has ended. Needed where Output is nil; with Output, its io.EOF says so.
	Done <-chan struct{}
	// Release makes a Write to Stdin that waits for the container return. It is called once, when the session
	// has ended.
	Release func()
	// Begin is called once, when the client is certain to outlive the process, as far as it can: what it waits for may
	// begin. It must not wait. nil for nothing. It is of Serve alone: what is restored has begun.
	Begin func()
	// StandIn says that this process only stands in for another one: that the client is gone, or has ended its input
	// where that ends the container's, is left for the next process to find. A session does not end of it.
	StandIn bool
	// Farewell is sent as the last words if the daemon leaves and the session ends with it.
	Farewell []byte
}

// Discard lets go of Streams that no session is made of.
func (s Streams) Discard() {
	if o, ok := s.Output.(releaser); ok {
		o.release()
	}
	if s.Release != nil {
		s.Release()
	}
}

// PipeInput is a container's input that is a pipe.
type PipeInput interface {
	// Pipe waits until the pipe is there. Release makes it, and writing to what it returns, return an error.
	Pipe() (syscall.RawConn, error)
}

// End is why a session ended.
type End int

// The reasons, as drawn in the package's comment.
const (
	EndExited   End = iota // the container's run ended, and all its output was sent
	EndDetached            // the client let go, the container runs
	EndGone                // the client is gone
	EndStopped             // the daemon leaves, and the session ended with it
	EndFailed              // the output could not be read
	EndFrozen              // the daemon leaves, and the next one goes on with the session
)

func (e End) String() string {
	return [...]string{"exited", "detached", "gone", "stopped", "failed", "frozen"}[e]
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// frameTime is how long a piece that is being sent when the session ends may take. A client that reads at all
// needs microseconds; one that does not delays the daemon's restart by this much.
const frameTime = 250 * time.Millisecond

// run is one session under way, in one process.
type run struct {
	conn    *Conn
	streams Streams
	framing Framing
	state   *state
	early   error           // what takeEarly said
	leaving <-chan struct{} // closed when the session is to stop in this process
	frozen  func()          // called before the connection of a session is closed that is frozen; may be nil

	// once guards why and err: the first reason counts, and closes ended.
	once  sync.Once
	ended chan struct{}
	why   End
	err   error
}

func newRun(conn *Conn, s Streams, f Framing, st *state) *run {
	return &run{conn: conn, streams: s, framing: f, state: st, ended: make(chan struct{})}
}

// serve is a session from here to its end, or to the end of this process: freeze says, once ctx is done,
// whether another one will go on. Then nothing is sent to anybody any more, and the state says all.
func (r *run) serve(ctx context.Context, freeze func() bool) (End, error) {
	pumping, cancel := context.WithCancel(ctx)
	r.leaving = ctx.Done()
	var pumps sync.WaitGroup
	pumps.Go(r.input)
	pumps.Go(func() { r.output(pumping) })
	select {
	case <-r.ended:
	case <-ctx.Done():
		why := EndStopped
		if freeze() && r.state.kept() {
			why = EndFrozen
		}
		r.end(why, nil)
	}
	cancel()
	r.stopPumps(&pumps)
	if r.why == EndFrozen || r.why == EndGone && r.streams.StandIn {
		return r.freeze(), nil
	}
	if r.why != EndGone {
		r.sayGoodbye(ctx)
		if ctx.Err() != nil && r.why != EndStopped && freeze() && r.state.kept() {
			return r.freeze(), nil
		}
	}
	r.conn.hangUp()
	return r.why, r.err
}

// freeze leaves the client to the next process.
func (r *run) freeze() End {
	if r.frozen != nil {
		r.frozen()
	}
	_ = r.conn.Close()
	return EndFrozen
}

func (r *run) end(why End, err error) {
	r.once.Do(func() {
		r.why, r.err = why, err
		if why != EndFrozen && (why != EndGone || !r.streams.StandIn) {
			// From here on there is nothing to go on with but saying goodbye.
			r.state.update(func(rec *record) { rec.over = true })
		}
		close(r.ended)
	})
}

// over says whether the session has ended, for whichever reason, or is about to.
func (r *run) over() bool {
	select {
	case <-r.ended:
		return true
	case <-r.leaving:
		return true
	default:
		return false
	}
}

// stopPumps makes both pumps return and waits for them. Deadlines, not Close: the connection is still needed
// for an orderly end. Where the client is to see the end, a piece that is being sent gets a moment to become
// whole.
func (r *run) stopPumps(pumps *sync.WaitGroup) {
	_ = r.conn.SetReadDeadline(past)
	if r.why == EndGone || r.why == EndFrozen {
		_ = r.conn.SetWriteDeadline(past)
	} else {
		_ = r.conn.SetWriteDeadline(time.Now().Add(frameTime))
	}
	if r.streams.Release != nil {
		r.streams.Release()
	}
	pumps.Wait()
}

// sayGoodbye completes what the client is being sent, as far as it reads, and closes the writing side in an
// orderly way.
func (r *run) sayGoodbye(ctx context.Context) {
	if r.why == EndStopped && len(r.state.unsent()) == 0 {
		_ = r.conn.SetWriteDeadline(time.Now().Add(frameTime))
		p := newPiece(r.framing, maxPiece)
		if len(r.streams.Farewell) > 0 {
			p.add(0, r.streams.Farewell)
			_, _ = r.conn.Write(p.bytes())
		}
		_, _ = r.conn.Write(r.framing.end())
	}
	_ = r.conn.SetDeadline(time.Time{})
	r.conn.Finish(ctx)
}
