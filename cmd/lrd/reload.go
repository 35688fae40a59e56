package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"lrd/internal/config"
	"lrd/internal/reload"
)

// runReload asks the running daemon to reload and waits for its answer: it is the ExecReload= of lrd.service, so its exit
// code is that of `systemctl reload lrd`.
func runReload(ctx context.Context, c *cli) error {
	fs := c.flagSet("reload")
	socket := fs.String("socket", config.DefaultSocket, "the API socket of the daemon")
	// A little more than a reload may take, so that the daemon's own words come first.
	timeout := fs.Duration("timeout", reload.DefaultTimeout+5*time.Second, "how long to wait for the daemon")
	if err := c.parse(fs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("no answer within %v", *timeout))
	defer cancel()
	report, err := requestReload(ctx, *socket)
	if err != nil {
		return err
	}
	printReport(c.stdout, report)
	return nil
}

// maxAnswer bounds what is read of an answer; a report of all keys is a few KiB.
const maxAnswer = 1 << 20

// requestReload posts to the daemon behind socket.
func requestReload(ctx context.Context, socket string) (reload.Report, error) {
	var report reload.Report
	var dialer net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lrd"+reload.Path, nil)
	if err != nil {
		return report, fmt.Errorf("cannot ask for a reload: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return report, explain(ctx, socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return report, explain(ctx, socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		return report, refusal(resp, body)
	}
	if err := json.Unmarshal(body, &report); err != nil {
		return report, fmt.Errorf("cannot understand the daemon's answer: %w", err)
	}
	return report, nil
}

// explain says in a person's words why there is no answer.
func explain(ctx context.Context, socket string, err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot reload: lrd is not running (nobody listens on %s); see systemctl status lrd", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot reload: no permission for %s: be root or in its group", socket)
	case ctx.Err() != nil:
		return fmt.Errorf("cannot reload: %w", context.Cause(ctx))
	default:
		return fmt.Errorf("cannot reload: the daemon behind %s did not answer: %w", socket, err)
	}
}

// refusal is what the daemon said when it did not reload.
func refusal(resp *http.Response, body []byte) error {
	var problem struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Message == "" {
		return fmt.Errorf("cannot reload: the daemon answered %s", resp.Status)
	}
	return fmt.Errorf("cannot reload, the old configuration stays:\n%s", problem.Message)
}

func printReport(w io.Writer, r reload.Report) {
	if len(r.Changed)+len(r.NeedRestart) == 0 {
		fmt.Fprintln(w, "reloaded: nothing changed")
		return
	}
	for _, change := range r.Changed {
		fmt.Fprintln(w, "changed: "+change.String())
	}
	for _, change := range r.NeedRestart {
		fmt.Fprintln(w, "needs a restart of lrd: "+change.String())
	}
}
