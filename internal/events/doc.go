// Package events keeps what happened and tells it to whoever listens: the events of the Docker Engine API
// ("Monitor events"), with a bounded history on disk that survives the process, however it ends.
//
// # Words
//
// An event is a [github.com/moby/moby/api/types/events.Message]. Its time (TimeNano) is when it was true, not
// when it was told: the exit of a container that happened while the daemon was away is published late, with
// the true time. The history is kept in the order of telling and answered in the order of time.
//
// A [Subscription] sees the history from since to until, in order of time, and then what is published from
// the moment of Subscribe on, in the order of telling. There is neither a hole nor a double between the two:
// one critical section notes where the history ends and registers the subscriber. since and until are exact
// to the nanosecond and both inclusive. They hold for late events too: one whose own time lies outside is not
// delivered, whenever it is told.
//
// A [Place] is how far a subscription has come. It can be saved, and [Hub.Resume] goes on from it in the next
// process: an event is found again by its time and what it says, so nothing is left out and nothing told twice.
//
// # On disk
//
//	events/
//	    current.jsonl     one event a line, appended by one write(2) each
//	    previous.jsonl    the generation before; replaced when current is full
//
// A generation is full at half of [Options.MaxBytes] or half of [Options.MaxEvents], so between half and all
// of the bound is always there to be asked for. A line is in the page cache when Publish returns: SIGKILL
// loses nothing, a power cut may lose the last seconds. A line torn by a crash or a full disk is cut off at
// Open; one that cannot be read is skipped and logged, the rest stays good.
//
// # Told once
//
// Who publishes what has happened, and then takes note on disk that it did, may be killed between the two, and publish
// it again as the next process. [Hub.PublishOnce] finds it in the history then. What is taken note of first, or not at
// all, is told at most once.
//
// # Who waits for whom
//
// Publish never waits for a subscriber. Every subscription has a queue of its own, bounded by
// [Options.Queue]; one that lags further is told what it has and then [ErrLagged], and can subscribe again
// with since. History is read from disk by the subscriber's own call of Next, outside the Hub's lock. The
// package starts no goroutine.
package events
