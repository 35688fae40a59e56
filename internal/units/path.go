package units

import (
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	destination  = "org.freedesktop.systemd1"
	managerPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface = "org.freedesktop.systemd1.Manager"
	propsIface   = "org.freedesktop.DBus.Properties"
	unitPrefix   = "/org/freedesktop/systemd1/unit/"
)

// unitPath is the object path of a unit, whether it is loaded or not.
func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath(unitPrefix + systemd.PathBusEscape(name))
}

// unitName is the inverse of unitPath. ok is false for a path that is not a unit's.
func unitName(path dbus.ObjectPath) (name string, ok bool) {
	escaped, ok := strings.CutPrefix(string(path), unitPrefix)
	if !ok {
		return "", false
	}
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c == '_' && i+2 < len(escaped) {
			hi, lo := hexDigit(escaped[i+1]), hexDigit(escaped[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
