package health

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// Docker's defaults.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
)

// Check is a container's health check.
type Check struct {
	// Command is what is executed in the container: a program and its arguments.
	Command []string
	// Interval lies between the end of a probe and the next one; StartInterval is that in the start period.
	Interval, StartInterval time.Duration
	// Timeout is how long a probe may take.
	Timeout time.Duration
	// StartPeriod is how long a container that has not been healthy yet may fail its probes.
	StartPeriod time.Duration
	// Retries is how many probes in a row have to fail for the container to be unhealthy.
	Retries int
}

// Of is the check that a container's configuration asks for; false if it has
// none. shell runs the check of a single string; nil is /bin/sh -c.
func Of(c *container.HealthConfig, shell []string) (Check, bool) {
	if c == nil || len(c.Test) < 2 {
		return Check{}, false
	}
	check := Check{
		Command: c.Test[1:], Interval: or(c.Interval, defaultInterval), StartInterval: or(c.StartInterval, defaultStartInterval),
		Timeout: or(c.Timeout, defaultTimeout), StartPeriod: c.StartPeriod, Retries: c.Retries,
	}
	if check.Retries <= 0 {
		check.Retries = defaultRetries
	}
	switch c.Test[0] {
	case "CMD":
	case "CMD-SHELL":
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		check.Command = append(slices.Clone(shell), c.Test[1:]...)
	default:
		return Check{}, false
	}
	return check, true
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// Validate refuses a check that makes no sense, with the sentences of Docker's
// daemon. The error is ErrInvalidArgument.
func Validate(c *container.HealthConfig) error {
	if c == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", c.Interval}, {"Timeout", c.Timeout}, {"StartPeriod", c.StartPeriod}, {"StartInterval", c.StartInterval}} {
		if d.value != 0 && d.value < time.Millisecond {
			return fmt.Errorf("%s in Healthcheck cannot be less than 1ms: %w", d.name, errdefs.ErrInvalidArgument)
		}
	}
	if c.Retries < 0 {
		return fmt.Errorf("%s in Healthcheck cannot be negative: %w", "Retries", errdefs.ErrInvalidArgument)
	}
	if len(c.Test) == 0 {
		return nil
	}
	switch kind := c.Test[0]; {
	case kind == "NONE":
	case kind != "CMD" && kind != "CMD-SHELL":
		return fmt.Errorf("unknown health check type %q, it must be NONE, CMD or CMD-SHELL: %w", kind, errdefs.ErrInvalidArgument)
	case len(c.Test) < 2 || c.Test[1] == "":
		return fmt.Errorf("the health check of type %s has no command: %w", kind, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Merge is what a request's check is with that of the image: the latter fills in
// what the former leaves open.
func Merge(request, image *container.HealthConfig) *container.HealthConfig {
	if request == nil || image == nil {
		if request == nil {
			return image
		}
		return request
	}
	merged := *request
	if len(merged.Test) == 0 {
		merged.Test = image.Test
	}
	for _, d := range []struct{ to, from *time.Duration }{
		{&merged.Interval, &image.Interval},
		{&merged.Timeout, &image.Timeout},
		{&merged.StartPeriod, &image.StartPeriod},
		{&merged.StartInterval, &image.StartInterval},
	} {
		if *d.to == 0 {
			*d.to = *d.from
		}
	}
	if merged.Retries == 0 {
		merged.Retries = image.Retries
	}
	return &merged
}
