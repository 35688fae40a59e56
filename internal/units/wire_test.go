package units

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/iotest"

	"github.com/godbus/dbus/v5"
	"gotest.tools/v3/assert"
)

// announcement is a PropertiesChanged of a unit, as PID 1 encodes it.
func announcement(t *testing.T, unit string, order binary.ByteOrder) []byte {
	t.Helper()
	return encode(t, order, "PropertiesChanged", unitPath(unit), unitIface, map[string]dbus.Variant{"ActiveState": dbus.MakeVariant("active")}, []string{})
}

func encode(t *testing.T, order binary.ByteOrder, member string, path dbus.ObjectPath, body ...any) []byte {
	t.Helper()
	msg := &dbus.Message{
		Type: dbus.TypeSignal, Body: body,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(propsIface),
			dbus.FieldMember: dbus.MakeVariant(member), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
		},
	}
	var b bytes.Buffer
	assert.NilError(t, msg.EncodeTo(&b, order))
	return b.Bytes()
}

// bytesConn is a connection that has said what is in its Reader.
type bytesConn struct {
	net.Conn
	io.Reader
}

func (c bytesConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func TestWireLeavesOutWhatNobodyWatches(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		ours, other := announcement(t, "lrd-1.service", order), announcement(t, "var-lib.mount", order)
		removed := encode(t, order, "UnitRemoved", managerPath, "var-lib.mount", unitPath("var-lib.mount"))
		large := encode(t, order, "PropertiesChanged", unitPath("lrd-2.service"), unitIface, bytes.Repeat([]byte{1}, 3*readAhead))
		largeOther := encode(t, order, "PropertiesChanged", unitPath("run.mount"), unitIface, bytes.Repeat([]byte{1}, 3*readAhead))
		login := []byte("OK 0123\r\n")
		said := bytes.Join([][]byte{login, other, ours, other, other, largeOther, removed, large, other, ours}, nil)
		var f filter
		f.add("lrd-")
		heard, err := io.ReadAll(iotest.OneByteReader(newWire(bytesConn{Reader: iotest.HalfReader(bytes.NewReader(said))}, &f)))
		assert.NilError(t, err)
		assert.Assert(t, bytes.Equal(heard, bytes.Join([][]byte{login, ours, removed, large, ours}, nil)))
	}
}

// What is damaged is godbus's to complain of: nothing here panics, or asks for endless memory.
func TestWirePassesOnWhatItDoesNotUnderstand(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	whole := announcement(t, "lrd-1.service", binary.LittleEndian)
	for range 20_000 {
		damaged := bytes.Clone(whole)
		for range 1 + random.IntN(4) {
			damaged[random.IntN(len(damaged))] = byte(random.Uint32())
		}
		var f filter
		f.add("lrd-")
		_, _ = io.Copy(io.Discard, newWire(bytesConn{Reader: bytes.NewReader(damaged[:random.IntN(len(damaged)+1)])}, &f))
	}
}
