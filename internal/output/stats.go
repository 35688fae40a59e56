package output

// Stats are figures of a Log.
type Stats struct {
	Streams  [2]StreamStats // standard output and standard error
	Records  int64          // ever written to the index
	Segments int            // that are there
	Readers  int            // that something is kept for
}

// StreamStats are figures of one stream, in bytes. A rate is the difference of
// two Bytes over time.
type StreamStats struct {
	Bytes   int64 // drained, ever
	Kept    int64 // of these, not removed by rotation
	Dropped int64 // by this process, as the store could not be written
}

// Stats returns how things are. It reads no file, and is cheap.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	st := l.stateLocked()
	s := Stats{Records: st.count, Segments: len(st.segs), Readers: len(l.holds)}
	l.mu.Unlock()
	for i := range s.Streams {
		s.Streams[i] = StreamStats{
			Bytes: st.ends[i], Kept: st.ends[i] - st.segs[0].begin[i], Dropped: l.streams[i].droppedBytes.Load(),
		}
	}
	return s
}
