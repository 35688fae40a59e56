package keyed

import (
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

// TestMutex: one at a time for a key, which the race detector sees as well, anybody for another, and nothing is left.
func TestMutex(t *testing.T) {
	var m Mutex
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for key, count := range counts {
		for range 50 {
			wg.Go(func() {
				defer m.Lock(key)()
				*count++
			})
		}
	}
	wg.Wait()
	assert.Equal(t, *counts["a"], 50)
	assert.Equal(t, *counts["b"], 50)

	unlock := m.Lock("a")
	m.Lock("b")() // does not wait for a
	unlock()
	assert.Equal(t, len(m.locks), 0)
}
