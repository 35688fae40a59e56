// Command lrd is the daemon and the tools that go with it: one binary with subcommands.
//
//	lrd [serve] [FLAGS]    run the daemon (what lrd.service does)
//	lrd validate [FLAGS]   check the configuration
//	lrd config [FLAGS]     print the configuration and where each value comes from
//	lrd reload             make the running daemon take its configuration over
//	lrd version            print the version
//
// main.go dispatches; each subcommand has a file of its own. run.go is the composition root of the daemon.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"go.podman.io/storage/pkg/reexec"

	"lrd/internal/config"
	"lrd/internal/journal"
)

func main() {
	// The storage library runs this binary again, under other names, to unpack layers: such a process must do that and
	// nothing else, so this comes before everything.
	if reexec.Init() {
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes, as those of most Unix tools.
const (
	exitFailed = 1
	exitUsage  = 2
	// exitConfig is EX_CONFIG of sysexits.h: `systemctl status` shows it as status=78/CONFIG.
	exitConfig = 78
)

// errUsage is for a command line that makes no sense. What is wrong has been said already.
var errUsage = errors.New("wrong usage")

// command is one subcommand.
type command struct {
	name, args, doc string
	run             func(ctx context.Context, c *cli) error
}

// commands is the table that dispatch and help are made from. It is a function because help is in it.
func commands() []command {
	return []command{
		{"serve", "[FLAGS]", "run the daemon; this is the default", runServe},
		{"validate", "[FLAGS]", "check the configuration and say all that is wrong", runValidate},
		{"config", "[FLAGS] [--from-docker FILE]", "print the configuration as TOML, or Docker's daemon.json as such", runConfig},
		{"reload", "[--socket PATH] [--timeout DURATION]", "make the running daemon take its configuration over", runReload},
		{"version", "", "print the version", runVersion},
		{"help", "", "print the list of commands", runHelp},
	}
}

// cli is what a subcommand has to do with: its arguments and where it writes.
type cli struct {
	args           []string
	stdout, stderr io.Writer
}

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	name, rest := commandOf(args)
	// The first signal asks to stop; a second one, while that takes its time, ends the process as it would any other.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)

	for _, cmd := range commands() {
		if cmd.name != name {
			continue
		}
		switch err := cmd.run(ctx, &cli{args: rest, stdout: stdout, stderr: stderr}); {
		case err == nil || errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return exitUsage
		default:
			complain(stderr, name, err)
			if wrong := config.Errors(nil); name == "serve" && errors.As(err, &wrong) {
				return exitConfig
			}
			return exitFailed
		}
	}
	fmt.Fprintf(stderr, "lrd: there is no command %q; lrd help lists them\n", name)
	return exitUsage
}

// commandOf finds the subcommand. Without one it is serve, but for the two questions that people ask a program that
// they do not know.
func commandOf(args []string) (name string, rest []string) {
	switch {
	case len(args) == 0:
		return "serve", args
	case !strings.HasPrefix(args[0], "-"):
		return args[0], args[1:]
	case len(args) == 1 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]):
		return "help", nil
	case len(args) == 1 && slices.Contains([]string{"-v", "-version", "--version"}, args[0]):
		return "version", nil
	}
	return "serve", args
}

// complain says why a command failed. What the daemon says goes to the journal, as errors; the tools speak to a person.
func complain(stderr io.Writer, name string, err error) {
	say := func(line string) { fmt.Fprintln(stderr, "lrd: "+line) }
	if name == "serve" {
		log, _ := journal.New(stderr, slog.LevelInfo)
		say = func(line string) { log.Error(line) }
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		say(line)
	}
}

func runHelp(_ context.Context, c *cli) error {
	fmt.Fprintln(c.stdout, "lrd is a container daemon for systemd hosts that speaks the Docker Engine API.\n\nCommands:")
	for _, cmd := range commands() {
		fmt.Fprintf(c.stdout, "  %-60s %s\n", strings.TrimSpace("lrd "+cmd.name+" "+cmd.args), cmd.doc)
	}
	fmt.Fprintf(c.stdout, "\nEvery key of %s is a flag of serve, validate and config: lrd serve --help lists them.\n", config.DefaultFile)
	return nil
}

// flagSet is an empty set of flags for a subcommand, for parse.
func (c *cli) flagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet("lrd "+name, flag.ContinueOnError)
	// parse says what is wrong, and prints the flags to somebody who asks: after a mistake they would only bury its line.
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// parse reads the command line; nothing may be left over.
func (c *cli) parse(fs *flag.FlagSet) error {
	switch err := fs.Parse(c.args); {
	case errors.Is(err, flag.ErrHelp):
		c.printFlags(fs)
		return err
	case err != nil:
		fmt.Fprintf(c.stderr, "lrd: %v; %s --help lists the flags\n", err, fs.Name())
		return errUsage
	case fs.NArg() > 0:
		fmt.Fprintf(c.stderr, "lrd: unexpected argument %q (a boolean flag takes its value after =, as in --live-restore=false)\n", fs.Arg(0))
		return errUsage
	}
	return nil
}

// printFlags is the answer to --help: the subcommand's own flags, and then the keys if it takes them.
func (c *cli) printFlags(fs *flag.FlagSet) {
	fmt.Fprintf(c.stdout, "Usage: %s [FLAGS]\n\n", fs.Name())
	keys := map[string]bool{}
	for _, k := range config.Keys() {
		for _, name := range append(k.Aliases, k.Name) {
			keys[name] = fs.Lookup(k.Name) != nil
		}
	}
	fs.VisitAll(func(f *flag.Flag) {
		if !keys[f.Name] {
			value, usage := flag.UnquoteUsage(f)
			fmt.Fprintf(c.stdout, "  --%s %s\n      %s\n", f.Name, value, usage)
		}
	})
	if !keys["debug"] {
		return
	}
	fmt.Fprintf(c.stdout, "\nThe keys of %s:\n\n", config.DefaultFile)
	for _, k := range config.Keys() {
		names := "--" + k.Name
		for _, a := range k.Aliases {
			names += ", " + strings.Repeat("-", min(2, len(a))) + a
		}
		fmt.Fprintf(c.stdout, "  %s (%s, default %s)\n      %s\n", names, k.Type(), k.Default(), k.Doc)
	}
}

// sourceFlags adds --config and a flag for each key. Call the function that it returns after parsing.
func sourceFlags(fs *flag.FlagSet) func() config.Sources {
	file := fs.String("config", "", "read `FILE` and FILE.d/*.toml instead of "+config.DefaultFile)
	fs.StringVar(file, "config-file", "", "the same as --config `FILE`")
	given := config.AddFlags(fs)
	return func() config.Sources {
		src := config.SourcesFor(*file)
		src.Flags = given
		return src
	}
}

// runServe loads the configuration and hands over to the daemon.
func runServe(ctx context.Context, c *cli) error {
	fs := c.flagSet("serve")
	sources := sourceFlags(fs)
	if err := c.parse(fs); err != nil {
		return err
	}
	src := sources()
	cfg, err := config.Load(src)
	if err != nil {
		return err
	}
	log, level := journal.New(c.stderr, cfg.Level())
	for _, w := range warnings(cfg) {
		log.Warn(w)
	}
	err = serve(ctx, src, cfg, log, level)
	if errors.Is(err, errStoppedEarly) {
		log.Info("Stopped", "error", err)
		return nil
	}
	return err
}

// warnings are what keeps nobody from starting, one sentence each: containers that need what is not there say so.
func warnings(cfg *config.Config) []string {
	all := cfg.Warnings()
	for _, missing := range checkFiles(nil, cfg) {
		all = append(all, missing.Error())
	}
	return all
}
