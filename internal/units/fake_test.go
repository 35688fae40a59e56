package units

import (
	"bufio"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"gotest.tools/v3/assert"
)

// fakePID1 is a D-Bus peer at a socket like /run/systemd/private, with as much of systemd behind it as the tests need: units that are maps of
// properties. What cannot be had from a real systemd at will is made with it: signals before replies, connections that end in the
// worst moment. Everything else is tested with a real one (units_lab_test.go).
type fakePID1 struct {
	socket   string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]uint32 // with the serial of the next message
	units map[string]map[string]any
	calls []string
	// on handles a method by its name before the fake does. It returns false to leave it to the fake.
	on map[string]func(c *fakeCall) bool
}

// fakeCall is a method call at the fake.
type fakeCall struct {
	f    *fakePID1
	conn net.Conn
	msg  *dbus.Message
}

func startFake(t *testing.T) *fakePID1 {
	f := &fakePID1{
		socket: filepath.Join(t.TempDir(), "private"),
		conns:  make(map[net.Conn]uint32),
		units:  make(map[string]map[string]any),
		on:     make(map[string]func(*fakeCall) bool),
	}
	f.listen(t)
	t.Cleanup(func() {
		f.drop()
		f.wg.Wait()
	})
	return f
}

func (f *fakePID1) listen(t *testing.T) {
	l, err := net.Listen("unix", f.socket)
	assert.NilError(t, err)
	f.listener = l
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(c) })
		}
	})
}

// hangUp ends all connections.
func (f *fakePID1) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

// drop ends all connections and takes no new ones.
func (f *fakePID1) drop() {
	f.listener.Close()
	f.hangUp()
}

// serve does the server's side of the authentication (D-Bus specification, "Authentication protocol"), then answers calls.
func (f *fakePID1) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for greeted := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimLeft(strings.TrimSpace(line), "\x00")
		reply := ""
		switch {
		case line == "BEGIN":
			greeted = true
		case line == "AUTH":
			reply = "REJECTED EXTERNAL"
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			reply = "DATA"
		case strings.HasPrefix(line, "DATA"):
			reply = "OK 0123456789abcdef0123456789abcdef"
		case line == "NEGOTIATE_UNIX_FD":
			reply = "AGREE_UNIX_FD"
		}
		if greeted {
			break
		}
		if _, err := io.WriteString(c, reply+"\r\n"); err != nil {
			return
		}
	}
	f.mu.Lock()
	f.conns[c] = 1
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	for {
		msg, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		call := &fakeCall{f, c, msg}
		f.mu.Lock()
		f.calls = append(f.calls, call.member())
		on := f.on[call.member()]
		f.mu.Unlock()
		if on == nil || !on(call) {
			f.handle(call)
		}
	}
}

func (f *fakePID1) handle(c *fakeCall) {
	path, _ := c.msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	name, _ := unitName(path)
	f.mu.Lock()
	unit := f.units[name]
	f.mu.Unlock()
	switch c.member() {
	case "Get":
		property := c.msg.Body[1].(string)
		if property == "Version" {
			c.reply(dbus.MakeVariant("252.1-fake"))
			return
		}
		if unit == nil {
			c.fail("org.freedesktop.DBus.Error.UnknownObject")
			return
		}
		v, ok := unit[property]
		if !ok {
			c.fail("org.freedesktop.DBus.Error.UnknownProperty")
			return
		}
		c.reply(dbus.MakeVariant(v))
	case "GetUnit":
		name := c.msg.Body[0].(string)
		f.mu.Lock()
		_, ok := f.units[name]
		f.mu.Unlock()
		if !ok {
			c.fail("org.freedesktop.systemd1.NoSuchUnit")
			return
		}
		c.reply(unitPath(name))
	case "ListUnitsByPatterns":
		list := []listed{}
		f.mu.Lock()
		for name := range f.units {
			list = append(list, listed{Name: name, Path: unitPath(name), JobPath: "/"})
		}
		f.mu.Unlock()
		c.reply(list)
	case "StartTransientUnit", "StopUnit":
		c.reply(dbus.ObjectPath("/org/freedesktop/systemd1/job/1"))
	default:
		c.reply()
	}
}

type listed struct {
	Name, Description, LoadState, ActiveState, SubState, Followed string
	Path                                                          dbus.ObjectPath
	JobID                                                         uint32
	JobType                                                       string
	JobPath                                                       dbus.ObjectPath
}

// set makes a unit, or changes some of its properties, without a word about it.
func (f *fakePID1) set(name string, props map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	unit := make(map[string]any)
	for k, v := range f.units[name] {
		unit[k] = v
	}
	for k, v := range props {
		unit[k] = v
	}
	f.units[name] = unit
}

func (f *fakePID1) unset(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.units, name)
}

// announce sends the two PropertiesChanged of a unit.
func (f *fakePID1) announce(name string) {
	props := make(map[string]dbus.Variant)
	f.mu.Lock()
	for k, v := range f.units[name] {
		props[k] = dbus.MakeVariant(v)
	}
	f.mu.Unlock()
	f.signal(unitPath(name), propsIface, "PropertiesChanged", serviceIface, props, []string{})
	f.signal(unitPath(name), propsIface, "PropertiesChanged", unitIface, props, []string{})
}

func (f *fakePID1) removed(name string) {
	f.signal(managerPath, managerIface, "UnitRemoved", name, unitPath(name))
}

func (f *fakePID1) jobRemoved(job dbus.ObjectPath, unit, result string) {
	f.signal(managerPath, managerIface, "JobRemoved", uint32(1), job, unit, result)
}

// signal sends to all connections.
func (f *fakePID1) signal(path dbus.ObjectPath, iface, member string, body ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		f.sendLocked(c, &dbus.Message{
			Type: dbus.TypeSignal,
			Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath:      dbus.MakeVariant(path),
				dbus.FieldInterface: dbus.MakeVariant(iface),
				dbus.FieldMember:    dbus.MakeVariant(member),
			},
			Body: body,
		})
	}
}

func (c *fakeCall) member() string {
	member, _ := c.msg.Headers[dbus.FieldMember].Value().(string)
	return member
}

func (c *fakeCall) reply(body ...any) { c.answer(dbus.TypeMethodReply, "", body) }

func (c *fakeCall) fail(name string) { c.answer(dbus.TypeError, name, []any{"fake: " + name}) }

func (c *fakeCall) answer(kind dbus.Type, name string, body []any) {
	headers := map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(c.msg.Serial())}
	if name != "" {
		headers[dbus.FieldErrorName] = dbus.MakeVariant(name)
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.sendLocked(c.conn, &dbus.Message{Type: kind, Headers: headers, Body: body})
}

func (f *fakePID1) sendLocked(c net.Conn, msg *dbus.Message) {
	if len(msg.Body) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(msg.Body...))
	}
	f.conns[c]++
	_ = (&serialWriter{c, f.conns[c]}).send(msg) // the peer may be gone
}

// serialWriter gives a message its serial, which package dbus does only for its own connections: bytes 8 to 11 of the header.
type serialWriter struct {
	w      io.Writer
	serial uint32
}

func (s *serialWriter) send(msg *dbus.Message) error { return msg.EncodeTo(s, binary.LittleEndian) }

func (s *serialWriter) Write(b []byte) (int, error) {
	binary.LittleEndian.PutUint32(b[8:], s.serial)
	return s.w.Write(b)
}

func (f *fakePID1) connect(t *testing.T) *Manager {
	m, err := connect(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)), f.socket)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, m.Close()) })
	return m
}
