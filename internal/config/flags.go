package config

import "flag"

// AddFlags gives fs a flag for each key and its aliases. What is given on the command line ends up, unchecked, in the
// map that it returns, which is Sources.Flags: Load then reports what is wrong with it together with the files.
func AddFlags(fs *flag.FlagSet) map[string][]string {
	given := map[string][]string{}
	for _, k := range table {
		v := &flagValue{key: k, given: given}
		fs.Var(v, k.Name, k.Doc)
		for _, alias := range k.Aliases {
			fs.Var(v, alias, "the same as --"+k.Name)
		}
	}
	return given
}

// flagValue implements [flag.Value] for one key.
type flagValue struct {
	key   *Key
	given map[string][]string
}

func (v *flagValue) Set(s string) error {
	if v.key.repeatable() {
		v.given[v.key.Name] = append(v.given[v.key.Name], s)
	} else {
		v.given[v.key.Name] = []string{s} // the last one wins, as people expect of a command line
	}
	return nil
}

func (v *flagValue) String() string {
	if v.key == nil { // package flag asks a zero value
		return ""
	}
	return v.key.Default()
}

// IsBoolFlag lets `--live-restore` stand for `--live-restore=true`.
func (v *flagValue) IsBoolFlag() bool { return v.key.Type() == boolean.name }
