package units

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// privateSocket is where PID 1 takes D-Bus connections of root without a bus in between; systemctl uses it too.
const privateSocket = "/run/systemd/private"

// link is one connection to PID 1, from its dialling to its end. Manager has one after the other.
type link struct {
	conn  *dbus.Conn
	inbox *queue[*dbus.Signal]
	lost  <-chan struct{} // closed when the connection has ended
}

// dialLink connects and authenticates. The connection lives until its Close; ctx limits only the dialling. onJob gets each JobRemoved, on
// the reader's goroutine, and must return at once.
// f says which announcements are heard.
func dialLink(ctx context.Context, socket string, f *filter, onJob func(job dbus.ObjectPath, result string)) (*link, error) {
	l := &link{inbox: newQueue[*dbus.Signal]()}
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	conn, err := dbus.NewConn(newWire(raw, f), dbus.WithSignalHandler(&receiver{l.inbox, onJob}))
	if err != nil {
		raw.Close()
		return nil, err
	}
	// The conversation of Auth knows no context: the end of ctx closes the connection under it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("authentication: %w", err)
	}
	// No Hello: there is no bus that gives out names.
	l.conn, l.lost = conn, conn.Context().Done()
	return l, nil
}

// close ends the connection; calls that are on their way fail.
func (l *link) close() { l.conn.Close() }

// begin sends a call and returns at once; its end arrives in call.Done, which has room for it.
func (l *link) begin(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return l.conn.Object(destination, path).GoWithContext(ctx, method, 0, make(chan *dbus.Call, 1), args...)
}

// call makes a call, waits for the reply, and stores its values in into (pointers). Errors are those of replyError.
func (l *link) call(ctx context.Context, into []any, path dbus.ObjectPath, method string, args ...any) (dbus.Sequence, error) {
	call := <-l.begin(ctx, path, method, args...).Done
	if call.Err != nil {
		return 0, replyError(ctx, call.Err)
	}
	if err := dbus.Store(call.Body, into...); err != nil {
		return 0, fmt.Errorf("cannot understand the reply to %s: %w", method, err)
	}
	return call.ResponseSequence, nil
}

// receiver is where godbus's reader delivers signals; the order is that of the connection, and nothing here waits.
type receiver struct {
	inbox *queue[*dbus.Signal]
	onJob func(job dbus.ObjectPath, result string)
}

// DeliverSignal implements dbus.SignalHandler.
func (r *receiver) DeliverSignal(_, member string, sig *dbus.Signal) {
	// Results of jobs go past the inbox. A reply that is read after the signal then proves that the result is there: see awaitJob.
	if member == "JobRemoved" {
		var (
			id           uint32
			job          dbus.ObjectPath
			unit, result string
		)
		if dbus.Store(sig.Body, &id, &job, &unit, &result) == nil {
			r.onJob(job, result)
		}
		return
	}
	r.inbox.put(sig)
}
