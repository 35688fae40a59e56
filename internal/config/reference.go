package config

import (
	"fmt"
	"strings"
)

// Reference is docs/configuration.md: every key with its type, default and meaning. A test holds the file up to date.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, k := range table {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s\n\n", k.Name, k.Doc)
		fmt.Fprintf(&b, "- Type: %s. Right is %s.\n", k.Type(), k.Want())
		fmt.Fprintf(&b, "- Default: `%s`\n", k.Default())
		if k.Reloadable {
			b.WriteString("- A change takes effect at a reload.\n")
		} else {
			b.WriteString("- A change takes effect at a restart of lrd.\n")
		}
		if !k.Docker {
			b.WriteString("- daemon.json has no such key.\n")
		}
		for _, a := range k.Aliases {
			fmt.Fprintf(&b, "- On the command line also `%s%s`.\n", dashes(a), a)
		}
	}
	b.WriteString("\n## Keys of daemon.json without a counterpart\n\n| key | why, or what to use instead |\n| --- | --- |\n")
	for _, reason := range sortedReasons(withoutCounterpart) {
		name, why, _ := strings.Cut(reason, ": ")
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, why)
	}
	return b.String()
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-"
	}
	return "--"
}

const referenceHead = `<!-- Made from the table in internal/config/keys.go by: go test ./internal/config -run Reference -update -->

# The configuration of lrd

lrd reads ` + "`/etc/lrd/lrd.toml`" + `, then ` + "`/etc/lrd/lrd.toml.d/*.toml`" + ` in the order of their names, then its flags.
None of the files has to exist. A file named with ` + "`--config FILE`" + ` has to, and its drop-ins are in ` + "`FILE.d/`" + `.

- Every key is also a flag of the same name: ` + "`--live-restore=false`, `--data-root /srv/lrd`" + `. Lists and tables may be repeated:
  ` + "`--dns 192.0.2.1 --dns 192.0.2.2`, `--runtimes youki=/usr/bin/youki`" + `.
- A later file replaces values and whole lists. Tables are merged entry by entry.
- A flag may repeat what a file says. If it says something else, lrd refuses both and names the two places.
- A key that is removed from a file has its default again after the next reload. The same holds for all keys when the
  default file is removed; a file named with ` + "`--config`" + ` must be there at every reload.
- Sizes are bytes as an integer, or strings like ` + "`\"64m\"`" + ` (b, k, m, g, t; powers of 1024). Durations are seconds as an integer,
  or strings like ` + "`\"1m30s\"`" + `; -1 is for ever.
- An unknown key, a wrong type or a value out of range is refused, with file, line, key and what would be right.
  A configuration that is refused never takes effect: a reload fails and the old one stays.

` + "`lrd validate`" + ` checks, ` + "`lrd config`" + ` prints what is in force and where each value comes from,
` + "`lrd config --from-docker /etc/docker/daemon.json`" + ` translates Docker's, and ` + "`systemctl reload lrd`" + ` (or ` + "`lrd reload`" + `) applies a
change and names the keys that wait for a restart.
`
