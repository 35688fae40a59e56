package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Pass passes h, whose files stay the caller's, to the standby at socket, and returns when that drains it. leave is
// called once the standby has all: it closes the Logs, and tells of each with released. A standby that crashes
// meanwhile is asked again, until ctx is done. An error that comes from before leave was called wraps [ErrNotPassed].
func Pass(ctx context.Context, socket string, h Holding, leave func(released func(id string))) error {
	c, err := insist(ctx, socket, func(c *Client) error { return c.Hold(ctx, h) })
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPassed, err)
	}
	// One that is not told finds out by itself, a little later.
	leave(func(id string) { _ = c.Release(id) })
	if err = c.Begin(ctx); err != nil {
		_ = c.Close()
		if c, err = insist(ctx, socket, func(c *Client) error { return c.Begin(ctx) }); err != nil {
			return err
		}
	}
	return c.Close()
}

// ErrNotPassed says that the standby has not got anything.
var ErrNotPassed = errors.New("lrd-standby does not drain while lrd is stopped")

// TakeBack takes back all that the standby at socket holds. keep takes the files over and returns when they are where
// a crash does not reach them; it may be called again with the same. A standby that crashes meanwhile is asked again,
// until ctx is done.
func TakeBack(ctx context.Context, socket string, keep func([]File) error) error {
	c, err := insist(ctx, socket, func(c *Client) error {
		files, err := c.Give(ctx)
		if err != nil {
			return err
		}
		if err := keep(files); err != nil {
			return err
		}
		return c.Taken(ctx)
	})
	if err != nil {
		return err
	}
	return c.Close()
}

// attempts is how often a standby that crashes under a question is asked it again.
const attempts = 10

// insist does something with a connection to the standby, with another one if that was cut off.
func insist(ctx context.Context, socket string, do func(*Client) error) (*Client, error) {
	for n := 1; ; n++ {
		c, err := Dial(ctx, socket)
		if err != nil {
			return nil, err
		}
		if err = do(c); err == nil {
			return c, nil
		}
		_ = c.Close()
		if ctx.Err() != nil || n == attempts || !cutOff(err) {
			return nil, err
		}
	}
}

// Held says whether the record at path says that something is held.
func Held(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Revoke removes the record at path: a standby that starts afterwards holds nothing.
func Revoke(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot revoke what lrd-standby holds: %w", err)
	}
	return nil
}
