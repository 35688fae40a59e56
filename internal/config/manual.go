package config

import (
	"fmt"
	"strings"
)

// Manual is packaging/man/lrd.toml.5: what [Reference] says, as a page for man(1). A test holds the file up to date.
func Manual() string {
	var b strings.Builder
	b.WriteString(manualHead)
	_, intro, _ := strings.Cut(referenceHead, "# The configuration of lrd\n\n")
	for _, paragraph := range paragraphs(intro) {
		text, bullet := strings.CutPrefix(paragraph, "- ")
		if bullet {
			b.WriteString(".IP \\(bu 2\n")
		} else {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(text) + "\n")
	}
	b.WriteString(".SH KEYS\nIn parentheses: the type, the default, and what it takes for a change to have an effect.\n")
	for _, k := range table {
		takes := "restart"
		if k.Reloadable {
			takes = "reload"
		}
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR (%s; default %s; %s)\n%s\n.br\nRight is %s.\n",
			roff(k.Name), k.Type(), roff("`"+k.Default()+"`"), takes, roff(k.Doc), roff(k.Want()))
	}
	b.WriteString(".SH KEYS OF DAEMON.JSON WITHOUT A COUNTERPART\n")
	for _, reason := range sortedReasons(withoutCounterpart) {
		name, why, _ := strings.Cut(reason, ": ")
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", roff(name), roff(why))
	}
	b.WriteString(".SH SEE ALSO\n.BR lrd (8),\n.BR resolv.conf (5),\n.BR setrlimit (2)\n")
	return b.String()
}

// paragraphs splits Markdown, as far as referenceHead has some, into paragraphs and items of lists, each on one line.
func paragraphs(markdown string) []string {
	var all []string
	fresh := true
	for line := range strings.Lines(markdown) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			fresh = true
		case fresh || strings.HasPrefix(line, "- "):
			all, fresh = append(all, line), false
		default:
			all[len(all)-1] += " " + line
		}
	}
	return all
}

// roff makes of a line of Markdown one of a manual page: what is in backquotes is bold, and nothing else means anything.
func roff(markdown string) string {
	text := strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(markdown)
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			part = `\fB` + part + `\fR`
		}
		b.WriteString(part)
	}
	if line := b.String(); !strings.HasPrefix(line, ".") {
		return line
	}
	return `\&` + b.String() // it would be a request
}

const manualHead = `.\" Made from the table in internal/config/keys.go by: go test ./internal/config -run Reference -update
.TH LRD.TOML 5 "" lrd "File formats"
.SH NAME
lrd.toml \- configuration of the container daemon lrd
.SH SYNOPSIS
.nf
/etc/lrd/lrd.toml
/etc/lrd/lrd.toml.d/*.toml
.fi
.SH DESCRIPTION
`
