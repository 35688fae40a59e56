package logdrivers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"

	"lrd/internal/logopts"
)

const (
	fluentdDial = 3 * time.Second
	// fluentdAck is how long the server may take to confirm an entry. A stop of the forwarder waits for it.
	fluentdAck = 3 * time.Second

	// fluentdBatch is how many entries may come twice after a SIGKILL: the server cannot be asked what it has. It confirms them
	// one by one, beside which saving the state for each is little. Without confirmations, nobody knows anyway.
	fluentdBatch, fluentdBatchUnconfirmed = 1, 100
)

// fluentd is the target of the driver fluentd: a collector that speaks the forward protocol.
type fluentd struct {
	config fluent.Config
	tag    string
	fixed  map[string]string // what is the same in all entries
	epoch  string

	client *fluent.Fluent
	queue  []fluentdEntry
	bytes  int
	sent   int // how many of queue the server has
}

type fluentdEntry struct {
	at     time.Time
	record map[string]string
}

func newFluentd(o Options) (*fluentd, error) {
	opts, err := logopts.ParseFluentd(o.Info.Config)
	if err != nil {
		return nil, err
	}
	f := &fluentd{
		config: fluent.Config{
			FluentNetwork: opts.Network, FluentHost: opts.Host, FluentPort: opts.Port, FluentSocketPath: opts.Path,
			SubSecondPrecision: opts.SubSecondPrecision, RequestAck: opts.RequestAck,
			Timeout: fluentdDial, WriteTimeout: fluentdAck, ReadTimeout: fluentdAck,
			// What cannot be sent is kept by the store and tried again by the forwarder.
			Async: false, MaxRetry: 1,
		},
		epoch: epochOf(o.Info.FullID()),
	}
	if strings.Contains(opts.Host, ":") {
		f.config.FluentHost = "[" + opts.Host + "]" // the library puts a colon and the port behind it
	}
	if f.tag, err = o.Info.Tag(logopts.DefaultTag); err != nil {
		return nil, err
	}
	if f.fixed, err = o.Info.Attributes(nil); err != nil {
		return nil, err
	}
	f.fixed["container_id"], f.fixed["container_name"] = o.Info.ContainerID, o.Info.ContainerName
	return f, nil
}

// open has nothing to get ready: the server is reached when there is something to send.
func (f *fluentd) open() error { return nil }

// resume has nothing to ask: the server does not tell what it has.
func (f *fluentd) resume(context.Context, int64, json.RawMessage, bool) error { return nil }

func (f *fluentd) size() int { return f.bytes }

func (f *fluentd) due() bool {
	if f.config.RequestAck {
		return len(f.queue) >= fluentdBatch
	}
	return len(f.queue) >= fluentdBatchUnconfirmed
}

func (f *fluentd) add(_ context.Context, e *entry) error {
	record := make(map[string]string, len(f.fixed)+6)
	for k, v := range f.fixed {
		record[k] = v
	}
	record["source"], record["log"] = e.stream.String(), string(bytes.ToValidUTF8(e.line, []byte("\uFFFD")))
	if e.piece > 0 {
		record["partial_message"] = "true"
		record["partial_id"] = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", f.epoch, e.first)))
		record["partial_ordinal"] = strconv.Itoa(e.piece)
		record["partial_last"] = strconv.FormatBool(!e.more)
	}
	f.queue = append(f.queue, fluentdEntry{e.time, record})
	f.bytes += len(e.line)
	return nil
}

func (f *fluentd) flush(ctx context.Context) error {
	for ; f.sent < len(f.queue); f.sent++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.client == nil {
			client, err := fluent.New(f.config)
			if err != nil {
				return fmt.Errorf("cannot reach the fluentd server: %w", err)
			}
			f.client = client
		}
		e := &f.queue[f.sent]
		if err := f.client.PostWithTime(f.tag, e.at, e.record); err != nil {
			return errors.Join(fmt.Errorf("cannot write to the fluentd server: %w", err), f.close())
		}
	}
	f.queue, f.bytes, f.sent = f.queue[:0], 0, 0
	return nil
}

func (f *fluentd) save() any { return nil }

func (f *fluentd) rest() { f.queue = nil }

func (f *fluentd) close() error {
	if f.client == nil {
		return nil
	}
	err := f.client.Close()
	f.client = nil
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
