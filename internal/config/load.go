package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources says what a configuration is made of. It is read anew by each [Load], so that a reload sees the files as
// they are then.
type Sources struct {
	File      string // the main file; empty: none
	Explicit  bool   // somebody named File: its absence is an error
	DropInDir string // its *.toml override File, in lexical order; empty: none; its absence is no error
	// Flags holds what was given on the command line: the name of a key (not an alias) and its raw values,
	// of which only lists and tables take more than one. See [AddFlags].
	Flags map[string][]string
}

// SourcesFor are the sources for a main file named with --config; for an empty name, those of the default file.
// The drop-ins of a file lie in the directory of its name with ".d" added.
func SourcesFor(file string) Sources {
	s := Sources{File: DefaultFile}
	if file != "" {
		s.File, s.Explicit = file, true
	}
	s.DropInDir = s.File + ".d"
	return s
}

// Load reads all sources and checks everything. Its error is [Errors]: everything that is wrong, not only the first.
func Load(s Sources) (*Config, error) {
	l := loader{cfg: Default()}
	if s.File != "" {
		l.file(s.File, s.Explicit)
	}
	for _, f := range l.dropIns(s.DropInDir) {
		l.file(f, true)
	}
	l.flags(s.Flags)
	if len(l.errs) == 0 {
		// Only over a whole configuration: what does not fit together may be what could not be read.
		l.errs = l.cfg.check()
	}
	if len(l.errs) > 0 {
		return nil, l.errs
	}
	return l.cfg, nil
}

// loader collects layers and what is wrong with them.
type loader struct {
	cfg  *Config
	errs Errors
}

// maxFile bounds what is read: a configuration is a page or two, and /dev/zero is none.
const maxFile = 1 << 20

// file lays a file over what there is.
func (l *loader) file(path string, mustExist bool) {
	data, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !mustExist:
		return
	case err != nil:
		l.errs = append(l.errs, &Error{Origin: Origin{File: path}, Problem: err.Error()})
		return
	}
	l.errs = append(l.errs, l.text(path, data)...)
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("cannot read the configuration: %w", err)
	}
	if len(data) > maxFile {
		return "", fmt.Errorf("cannot read the configuration: it is larger than %d bytes", maxFile)
	}
	return string(data), nil
}

// text lays the text of one file over what there is.
func (l *loader) text(path, data string) (errs Errors) {
	root, bad := parseTOML(data)
	if bad != nil {
		bad.Origin.File = path
		return Errors{bad}
	}
	origin := func(line int) Origin { return Origin{File: path, Line: line} }
	for _, name := range slices.Sorted(maps.Keys(root.table)) {
		errs = append(errs, l.set(name, root.table[name], origin)...)
	}
	errs.sortWithin()
	return errs
}

// set lays one key's value over what there is.
func (l *loader) set(name string, n *node, origin func(int) Origin) (errs Errors) {
	key := find(name)
	if key == nil {
		return Errors{unknownKey(name, origin(n.line))}
	}
	for _, f := range key.set(l.cfg, name, n, origin) {
		errs = append(errs, &Error{Origin: origin(f.line), Key: name + f.below, Problem: f.problem, Want: f.want})
	}
	return errs
}

func unknownKey(name string, at Origin) *Error {
	e := &Error{Origin: at, Key: bareKey(name), Problem: "unknown key"}
	if why, ok := withoutCounterpart[name]; ok {
		e.Problem = "Docker's key has no counterpart in lrd: " + why
		return e
	}
	e.Problem += didYouMean(name, keyNames())
	return e
}

func keyNames() []string {
	names := make([]string, len(table))
	for i, k := range table {
		names[i] = k.Name
	}
	return names
}

// dropIns lists the *.toml in dir, sorted by name.
func (l *loader) dropIns(dir string) []string {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.errs = append(l.errs, &Error{Origin: Origin{File: dir}, Problem: fmt.Sprintf("cannot read the drop-ins: %v", err)})
		}
		return nil
	}
	var files []string
	for _, e := range entries { // ReadDir sorts by name
		// Editors leave hidden files behind.
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

// flags joins what the command line says. A flag may repeat what a file says; where they contradict each other there
// is no telling which one was meant, so that is refused, as dockerd does.
func (l *loader) flags(flags map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		origin := Origin{Flag: name}
		key := find(name)
		if key == nil {
			l.errs = append(l.errs, unknownKey(name, origin))
			continue
		}
		n, err := key.fromFlags(flags[name])
		if err != nil {
			l.errs = append(l.errs, &Error{Origin: origin, Key: name, Problem: err.Error(), Want: key.Want()})
			continue
		}
		files := *l.cfg // what the files say, to compare with
		files.origins = maps.Clone(l.cfg.origins)
		if errs := l.set(name, n, func(int) Origin { return origin }); len(errs) > 0 {
			l.errs = append(l.errs, errs...)
			continue
		}
		l.errs = append(l.errs, contradictions(key, &files, l.cfg, n)...)
	}
}

// contradictions tells where flags, laid over files with the node n, changed what a file said.
func contradictions(key *Key, files, flags *Config, n *node) (errs Errors) {
	differ := func(name, inFile, inFlag string) {
		if at := files.Origin(name); !at.IsDefault() && inFile != inFlag {
			errs = append(errs, &Error{
				Origin:  Origin{Flag: key.Name},
				Key:     name,
				Problem: fmt.Sprintf("the flag says %s, but %s says %s", inFlag, at, inFile),
				Want:    "to say it in one place only",
			})
		}
	}
	if n.table == nil {
		differ(key.Name, key.text(files), key.text(flags))
		return errs
	}
	inFile, inFlag := key.entries(files), key.entries(flags)
	for _, entry := range slices.Sorted(maps.Keys(n.table)) {
		differ(key.Name+"."+entry, inFile[entry], inFlag[entry])
	}
	return errs
}
