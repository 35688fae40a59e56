package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// askTimeout bounds what is asked of others for one answer: as long as Prometheus waits by default, and less.
const askTimeout = 5 * time.Second

// Sources are asked at each request.
type Sources struct {
	// Containers tells how many there are in each state.
	Containers func() map[string]int
	// Descriptors tells how many systemd has stored, and how many it would.
	Descriptors func(ctx context.Context) (stored, most uint32, err error)
	// Sessions tells how many streams of clients there are.
	Sessions func() int
	// Outputs tells of each container what it has written.
	Outputs func() []Output
	// Drained and Forwarded tell, by log driver, how many bytes were taken from containers, and delivered, since the
	// daemon's start.
	Drained, Forwarded func() map[string]int64
}

// Output is what a container has written, in bytes. Index by stream: standard output, standard error.
type Output struct {
	ID, Name, Driver string
	Bytes, Dropped   [2]int64
}

// Metrics is what lrd tells Prometheus. Make it with New.
type Metrics struct {
	log      *slog.Logger
	registry *prometheus.Registry
	server   *http.Server

	restore, restored prometheus.Gauge
	reloads           *prometheus.CounterVec
}

// New returns Metrics that ask s. version is the daemon's.
func New(s Sources, version string, log *slog.Logger) *Metrics {
	m := &Metrics{
		log:      log,
		registry: prometheus.NewRegistry(),
		restore: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lrd_restore_duration_seconds", Help: "How long it took to take the containers back when the daemon was started.",
		}),
		restored: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lrd_restore_containers", Help: "How many containers there were when the daemon was started.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lrd_reloads_total", Help: "Reloads of the configuration.",
		}, []string{"result"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lrd_info", Help: "1, with the version of the daemon.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	for _, result := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(result) // 0 is a figure too
	}
	m.registry.MustRegister(info, m.restore, m.restored, m.reloads, &collector{sources: s, log: log},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 2 * askTimeout}))
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: askTimeout, WriteTimeout: 3 * askTimeout, IdleTimeout: 5 * time.Minute}
	return m
}

// Restored takes note of the daemon's start.
func (m *Metrics) Restored(containers int, took time.Duration) {
	m.restored.Set(float64(containers))
	m.restore.Set(took.Seconds())
}

// Reloaded takes note of a reload; err is why it failed.
func (m *Metrics) Reloaded(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// Serve answers on l until Close.
func (m *Metrics) Serve(l net.Listener) error {
	if err := m.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve metrics: %w", err)
	}
	return nil
}

// Close ends all answers. The sockets stay systemd's, and who connects meanwhile waits for the next daemon.
func (m *Metrics) Close() error { return m.server.Close() }
