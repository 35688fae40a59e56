package images

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// claims are the images that loads and pulls are bringing in at the moment. Two of them may bring the same image, and the
// one that fails must not take from the other what that has told its client is there.
type claims struct {
	// mu guards of. It is held while an image that nobody keeps is deleted, so that nobody claims it meanwhile.
	mu sync.Mutex
	of map[digest.Digest]*claim
}

// claim is one image that is coming in.
type claim struct {
	users int  // who bring it
	fresh bool // it was not there when the first of them came
	kept  bool // one of them has succeeded
}

// take claims an image; there tells whether it is stored. Whoever takes gives back.
func (c *claims) take(id digest.Digest, there func(id string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[digest.Digest]*claim{}
	}
	if c.of[id] == nil {
		c.of[id] = &claim{fresh: !there(id.Encoded())}
	}
	c.of[id].users++
}

// giveBack ends a claim. keep says that the image has come in; discard deletes one that nobody has kept and that was
// not there before.
func (c *claims) giveBack(id digest.Digest, keep bool, discard func(id digest.Digest)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of[id]
	of.kept = of.kept || keep
	if of.users--; of.users > 0 {
		return
	}
	delete(c.of, id)
	if of.fresh && !of.kept {
		discard(id)
	}
}
