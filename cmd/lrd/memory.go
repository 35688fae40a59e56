package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// thrift gives memory back to the system when there is nothing to do. Go's collector runs when the heap has doubled,
// which it has not when a burst of work is over, and so the garbage of a hundred starts, some megabytes, would stay for as long
// as the daemon idles: more than all that is kept for the containers.
type thrift struct {
	// freed is how many bytes had been allocated, since the process began, when memory was last given back; last is how many at the last look.
	freed, last uint64
}

const (
	// thriftEvery is how often is looked. A look reads one figure.
	thriftEvery = time.Second
	// thriftQuiet is how many bytes are allocated between two looks by a daemon that has nothing to do but a client's poll now and then.
	thriftQuiet = 128 << 10
	// thriftWorth is how many bytes must have been allocated since to be worth a collection, which takes some 10 ms of processor time.
	thriftWorth = 4 << 20
)

// look says whether memory is to be given back now, that allocated bytes have been allocated.
func (t *thrift) look(allocated uint64) bool {
	quiet := allocated-t.last < thriftQuiet
	t.last = allocated
	if !quiet || allocated-t.freed < thriftWorth {
		return false
	}
	t.freed = allocated
	return true
}

// keepThrifty looks until ctx is done.
func (d *daemon) keepThrifty(ctx context.Context) {
	tick := time.NewTicker(thriftEvery)
	defer tick.Stop()
	var t thrift
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(allocated)
		if t.look(allocated[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}
