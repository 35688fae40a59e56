package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.podman.io/storage/pkg/reexec"
	"gotest.tools/v3/assert"

	"lrd/internal/config"
	"lrd/internal/reload"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	testscript.Main(m, map[string]func(){
		"lrd":        main,
		"fakedaemon": fakeDaemon,
	})
}

// TestScripts runs the command line as a person does: each file in testdata/script is commands and what they print.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}

// fakeDaemon serves reloads of lrd.toml on lrd.sock, both in the working directory, until it is interrupted. It is the
// real Coordinator behind the real Handler: what is missing is only the daemon.
func fakeDaemon() {
	src := config.SourcesFor("lrd.toml")
	cfg, err := config.Load(src)
	if err != nil {
		panic(err)
	}
	c := reload.New(reload.Options{Load: func() (*config.Config, error) { return config.Load(src) }}, cfg)
	listener, err := net.Listen("unix", "lrd.sock")
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle(reload.Path, c.Handler())
	_ = http.Serve(listener, mux) // ends with the process
	os.Exit(0)
}

// TestReloadWaitsForSilentDaemon holds that a daemon which takes the connection and never answers is no hang.
func TestReloadWaitsForSilentDaemon(t *testing.T) {
	socket := t.TempDir() + "/lrd.sock"
	listener, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	defer listener.Close()
	cause := errors.New("no answer within a moment")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	_, err = requestReload(ctx, socket)
	assert.ErrorContains(t, err, "cannot reload: no answer within a moment")
}

// TestReloadSurvivesNonsense holds what `lrd reload` says to answers that no lrd gives.
func TestReloadSurvivesNonsense(t *testing.T) {
	socket := t.TempDir() + "/lrd.sock"
	listener, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	var answer atomic.Value
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer.Load().(http.HandlerFunc)(w, nil) })}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	for _, tc := range []struct {
		handler http.HandlerFunc
		want    string
	}{
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "cannot reload: the daemon answered 404 Not Found"},
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "cannot understand the daemon's answer"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "did not answer"},
	} {
		answer.Store(tc.handler)
		_, err := requestReload(t.Context(), socket)
		assert.ErrorContains(t, err, tc.want)
	}
}

// TestManualNamesEveryCommand holds packaging/man/lrd.8 to the table of commands.
func TestManualNamesEveryCommand(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/lrd.8")
	assert.NilError(t, err)
	escape := strings.NewReplacer("-", `\-`, "'", `\(aq`).Replace
	for _, cmd := range commands() {
		entry := strings.TrimSpace(`\fBlrd `+escape(cmd.name)+`\fR `+escape(cmd.args)) + "\n" + escape(cmd.doc) + "\n"
		assert.Check(t, strings.Contains(string(page), ".TP\n"+entry), "the manual page lacks:\n%s", entry)
	}
}
