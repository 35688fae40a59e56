package output

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
)

func TestParseOptions(t *testing.T) {
	with := func(change func(*Options)) Options {
		o := DefaultOptions()
		change(&o)
		return o
	}
	for _, tc := range []struct {
		opts string
		want Options
		err  string
	}{
		{opts: "", want: DefaultOptions()},
		{opts: "tag=x labels=y", want: DefaultOptions()},
		{opts: "max-size=1m max-file=3 compress=false", want: with(func(o *Options) { o.MaxSize, o.MaxFiles, o.Compress = 1_000_000, 3, false })},
		{opts: "max-size=-1 max-file=3", want: with(func(o *Options) { o.MaxSize, o.MaxFiles = 0, 0 })},
		{opts: "max-size=0", want: with(func(o *Options) { o.MaxSize, o.MaxFiles = 0, 0 })},
		{opts: "mode=blocking on-full=drop", want: with(func(o *Options) { o.OnFull = OnFullDrop })},
		{opts: "mode=non-blocking max-buffer-size=4m", want: with(func(o *Options) {
			o.NonBlocking, o.MaxBuffer, o.OnFull = true, 4<<20, OnFullDrop
		})},
		{opts: "max-size=ten", err: `invalid value for log option max-size: "ten" (a size as 20m`},
		{opts: "max-size=-5m", err: "max-size"},
		{opts: "max-size=1k", err: "at least 8k"},
		{opts: "max-size=9999999999999g", err: "max-size"},
		{opts: "max-file=0", err: `invalid value for log option max-file: "0" (a number from 1)`},
		{opts: "compress=maybe", err: "true or false"},
		{opts: "mode=async", err: `invalid value for log option mode: "async" (blocking or non-blocking)`},
		{opts: "max-buffer-size=1m", err: "works with mode=non-blocking only"},
		{opts: "mode=non-blocking max-buffer-size=1", err: "from 4k to 1g"},
		{opts: "mode=non-blocking on-full=block", err: "does not go with"},
		{opts: "on-full=burn", err: "block or drop"},
	} {
		t.Run(tc.opts, func(t *testing.T) {
			opts := map[string]string{}
			for _, f := range strings.Fields(tc.opts) {
				k, v, _ := strings.Cut(f, "=")
				opts[k] = v
			}
			got, err := ParseOptions(opts)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Assert(t, errdefs.IsInvalidArgument(err))
				return
			}
			assert.NilError(t, err)
			b, err := json.Marshal(got)
			assert.NilError(t, err)
			var sent Options
			assert.NilError(t, json.Unmarshal(b, &sent))
			b2, err := json.Marshal(sent)
			assert.NilError(t, err)
			assert.Equal(t, string(b), string(b2))
			want, err := json.Marshal(tc.want)
			assert.NilError(t, err)
			assert.Equal(t, string(b), string(want))
		})
	}
}
