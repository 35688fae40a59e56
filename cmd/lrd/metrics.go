package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"lrd/internal/metrics"
)

// FileDescriptorName= of lrd-metrics.socket and lrd-debug.socket, which are there only if an administrator wants them.
const (
	metricsSocket = "metrics"
	debugSocket   = "debug"
)

// makeMetrics makes what Prometheus is told; nobody is answered yet.
func (d *daemon) makeMetrics() {
	d.metrics = metrics.New(metrics.Sources{
		Containers: func() map[string]int {
			n := map[string]int{}
			for state, count := range d.ctrs.States() {
				n[string(state)] = count
			}
			return n
		},
		Descriptors: d.descriptors,
		Sessions:    d.sessions.Count,
		Outputs: func() []metrics.Output {
			var all []metrics.Output
			for _, o := range d.ctrs.Outputs() {
				m := metrics.Output{ID: o.ID, Name: o.Name, Driver: o.Driver}
				for i, s := range o.Streams {
					m.Bytes[i], m.Dropped[i] = s.Bytes, s.Dropped
				}
				all = append(all, m)
			}
			return all
		},
		Drained: d.ctrs.Drained, Forwarded: d.drivers.Forwarded,
	}, version, d.log)
}

// descriptors are how many systemd has stored for us, and how many it would.
func (d *daemon) descriptors(ctx context.Context) (stored, most uint32, err error) {
	if stored, err = d.countStored(ctx); err != nil {
		return 0, 0, err
	}
	v, err := d.units.ServiceProperty(ctx, d.unit, "FileDescriptorStoreMax")
	if err != nil {
		return 0, 0, err
	}
	most, ok := v.Value().(uint32)
	if !ok {
		return 0, 0, fmt.Errorf("FileDescriptorStoreMax of %s is a %T", d.unit, v.Value())
	}
	return stored, most, nil
}

// serveMetrics begins to answer Prometheus, if there is a socket for it.
func (d *daemon) serveMetrics() {
	for _, l := range d.extra[metricsSocket] {
		d.work.Go(func() {
			if err := d.metrics.Serve(l); err != nil {
				d.log.Error("Cannot serve metrics", "error", err)
			}
		})
	}
	d.closers = append(d.closers, d.metrics.Close)
}

// serveDebug begins to answer whoever wants to look inside (`go tool pprof`), if there is a socket for it.
func (d *daemon) serveDebug() {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	for _, l := range d.extra[debugSocket] {
		d.work.Go(func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				d.log.Error("Cannot serve the debug socket", "error", err)
			}
		})
	}
	d.closers = append(d.closers, server.Close)
}
