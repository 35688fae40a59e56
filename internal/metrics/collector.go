package metrics

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// streams are the names of an Output's streams.
var streams = [2]string{"stdout", "stderr"}

var (
	containersDesc = prometheus.NewDesc("lrd_containers", "Containers, by state.", []string{"state"}, nil)
	storedDesc     = prometheus.NewDesc("lrd_descriptors_stored", "Descriptors in systemd's store of lrd.service.", nil, nil)
	mostDesc       = prometheus.NewDesc("lrd_descriptors_max", "How many descriptors systemd would store: FileDescriptorStoreMax=.", nil, nil)
	sessionsDesc   = prometheus.NewDesc("lrd_sessions", "Streams of clients.", nil, nil)
	outputLabels   = []string{"id", "name", "driver", "stream"}
	outputDesc     = prometheus.NewDesc("lrd_container_output_bytes_total", "What a container has written, in bytes.", outputLabels, nil)
	droppedDesc    = prometheus.NewDesc("lrd_container_output_dropped_bytes_total",
		"What of a container's output was dropped, as it could not be stored, in bytes.", outputLabels, nil)
	drainedDesc   = prometheus.NewDesc("lrd_output_drained_bytes_total", "Output taken from containers, by their log driver, in bytes.", []string{"driver"}, nil)
	forwardedDesc = prometheus.NewDesc("lrd_output_forwarded_bytes_total", "Output delivered by log drivers, in bytes of the containers'.", []string{"driver"}, nil)
)

// A collector asks the sources when Prometheus asks.
type collector struct {
	sources Sources
	log     *slog.Logger
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		containersDesc, storedDesc, mostDesc, sessionsDesc, outputDesc, droppedDesc, drainedDesc, forwardedDesc,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for state, n := range c.sources.Containers() {
		gauge(containersDesc, float64(n), state)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	stored, most, err := c.sources.Descriptors(ctx)
	if err != nil {
		c.log.Warn("Cannot find out how many descriptors are stored, for metrics", "error", err)
	} else {
		gauge(storedDesc, float64(stored))
		gauge(mostDesc, float64(most))
	}
	gauge(sessionsDesc, float64(c.sources.Sessions()))
	for _, o := range c.sources.Outputs() {
		for i, stream := range streams {
			counter(outputDesc, o.Bytes[i], o.ID, o.Name, o.Driver, stream)
			counter(droppedDesc, o.Dropped[i], o.ID, o.Name, o.Driver, stream)
		}
	}
	for driver, n := range c.sources.Drained() {
		counter(drainedDesc, n, driver)
	}
	for driver, n := range c.sources.Forwarded() {
		counter(forwardedDesc, n, driver)
	}
}
