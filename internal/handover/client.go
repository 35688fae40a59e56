package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// dialPause is how long Dial waits before it tries again.
const dialPause = 20 * time.Millisecond

// patience is how long the standby may take for one packet, which is 240 descriptors at most: that takes it
// milliseconds. It is also how long one that is started again may take to appear.
const patience = 5 * time.Second

// Client is the daemon's end of a connection to the standby. A standby that does not answer is an error that wraps
// os.ErrDeadlineExceeded.
type Client struct{ conn conn }

// Dial connects to the standby at path, trying for a while: one that is being started again takes a moment.
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err == nil {
			return &Client{conn{c: c}}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot reach lrd-standby: %w", err)
		case <-time.After(dialPause):
		}
	}
}

// Close ends the connection. A standby that was asked to give, and not told taken, goes on as before.
func (c *Client) Close() error { return c.conn.c.Close() }

// Hold passes h, whose files stay the caller's, to the standby. When it returns, the standby has all of it where a
// crash of it does not reach. It may be called any number of times; Drain and Sessions are those of the last.
func (c *Client) Hold(ctx context.Context, h Holding) error {
	files, logs := h.Files, h.Logs
	for first := true; first || len(files) > 0 || len(logs) > 0; first = false {
		nf, nl := min(len(files), maxFiles), min(len(logs), maxLogs)
		p := packet{Ask: askHold, Drain: h.Drain, Sessions: h.Sessions, Logs: logs[:nl]}
		if err := c.ask(ctx, p, files[:nf]); err != nil {
			return fmt.Errorf("cannot pass descriptors to lrd-standby: %w", err)
		}
		files, logs = files[nf:], logs[nl:]
	}
	return nil
}

// Release says that the daemon has closed a Log that it has passed.
func (c *Client) Release(id string) error {
	c.wait()
	if err := c.conn.send(packet{Ask: askRelease, ID: id}, nil); err != nil {
		return fmt.Errorf("cannot tell lrd-standby: %w", err)
	}
	return nil
}

// Begin says that all Logs are closed. When it returns, they are drained by the standby.
func (c *Client) Begin(ctx context.Context) error {
	if err := c.ask(ctx, packet{Ask: askBegin}, nil); err != nil {
		return fmt.Errorf("cannot have lrd-standby drain: %w", err)
	}
	return nil
}

// Give makes the standby stop, and returns all that it holds, for the caller to close.
func (c *Client) Give(ctx context.Context) (all []File, err error) {
	defer func() {
		if err != nil {
			CloseFiles(all)
			all, err = nil, fmt.Errorf("cannot take back what lrd-standby holds: %w", err)
		}
	}()
	c.wait()
	defer c.conn.until(ctx)()
	if err := c.conn.send(packet{Ask: askGive}, nil); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		c.wait()
		p, files, err := c.conn.receive()
		all = append(all, files...)
		switch {
		case err != nil:
			return all, err
		case p.Error != "":
			return all, errors.New(p.Error)
		case !p.More:
			return all, nil
		}
	}
	return all, context.Cause(ctx)
}

// Taken says that the daemon has all that was given where a crash of it does not reach. When it returns, the standby
// holds nothing.
func (c *Client) Taken(ctx context.Context) error {
	if err := c.ask(ctx, packet{Ask: askTaken}, nil); err != nil {
		return fmt.Errorf("cannot make lrd-standby forget what it has given back: %w", err)
	}
	return nil
}

// wait begins to be patient.
func (c *Client) wait() { _ = c.conn.c.SetDeadline(time.Now().Add(patience)) }

// ask sends a packet and waits for the answer.
func (c *Client) ask(ctx context.Context, p packet, files []File) error {
	c.wait()
	defer c.conn.until(ctx)()
	if err := c.conn.send(p, files); err != nil {
		return err
	}
	answer, more, err := c.conn.receive()
	CloseFiles(more)
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return err
}
