package journal

import (
	"bytes"
	"log/slog"
	"testing"

	"gotest.tools/v3/assert"
)

func TestLines(t *testing.T) {
	var b bytes.Buffer
	log, level := New(&b, slog.LevelInfo)
	log.Debug("not yet")
	log.Info("container started", "container", "0123", "unit", "lrd-0123.service")
	log.With("operation", "restore").WithGroup("g").Warn("odd", "msg", "a b")
	log.Error("two\nlines", "error", "with\nnewline")
	level.Set(slog.LevelDebug)
	log.Debug("now")
	level.Set(slog.LevelError)
	log.Warn("no more")
	assert.Equal(t, b.String(), `<6>container started container=0123 unit=lrd-0123.service
<4>odd operation=restore g.msg="a b"
<3>two
<3>  lines error="with\nnewline"
<7>now
`)
}

func TestLinesOnATerminal(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newHandler(&b, slog.LevelInfo, false))
	log.Info("hello")
	log.Error("bye")
	assert.Equal(t, b.String(), "INFO hello\nERROR bye\n")
}
