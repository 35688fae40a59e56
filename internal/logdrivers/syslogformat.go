package logdrivers

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// A syslogFormat is how a message is written; the forms are those of Docker's option syslog-format.
type syslogFormat struct {
	name   string
	tag    string
	host   string
	pid    int
	length bool // each message begins with its length (RFC 5425), instead of ending with a newline
}

func newSyslogFormat(name, tag string, overTLS bool) syslogFormat {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-" // the nil value of RFC 5424
	}
	f := syslogFormat{name: name, tag: tag, host: host, pid: os.Getpid()}
	f.length = overTLS && (name == "rfc5424" || name == "rfc5424micro")
	return f
}

// append appends a message. at is when its line arrived.
func (f *syslogFormat) append(b []byte, priority int, at time.Time, line []byte) []byte {
	begin := len(b)
	switch f.name {
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if f.name == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(b, "<%d>1 ", priority)
		b = at.AppendFormat(b, layout)
		b = fmt.Appendf(b, " %s %s %d %s - ", f.host, f.tag, f.pid, f.tag)
	case "rfc3164":
		b = fmt.Appendf(b, "<%d>", priority)
		b = at.AppendFormat(b, time.Stamp)
		b = fmt.Appendf(b, " %s %s[%d]: ", f.host, f.tag, f.pid)
	default:
		b = fmt.Appendf(b, "<%d>", priority)
		b = at.AppendFormat(b, time.Stamp)
		b = fmt.Appendf(b, " %s[%d]: ", f.tag, f.pid)
	}
	b = append(append(b, line...), '\n')
	if !f.length {
		return b
	}
	message := append([]byte(nil), b[begin:]...)
	b = append(strconv.AppendInt(b[:begin], int64(len(message)), 10), ' ')
	return append(b, message...)
}
