package keyed

import "sync"

// Mutex is a lock for each key. The zero value is ready, and safe for concurrent use.
type Mutex struct {
	mu    sync.Mutex // guards locks; never held while one of them is waited for
	locks map[string]*counted
}

type counted struct {
	sync.Mutex
	users int // who has it or waits for it; guarded by Mutex.mu
}

// Lock takes the lock for key and returns what gives it back, which is to be called once.
func (m *Mutex) Lock(key string) (unlock func()) {
	m.mu.Lock()
	if m.locks == nil {
		m.locks = map[string]*counted{}
	}
	l := m.locks[key]
	if l == nil {
		l = &counted{}
		m.locks[key] = l
	}
	l.users++
	m.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(m.locks, key)
		}
	}
}
