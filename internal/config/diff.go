package config

import "maps"

// Change is a key whose value differs between two configurations. Values are TOML, as `lrd config` prints them.
type Change struct {
	Key        string `json:"key"`
	Old        string `json:"old"`
	New        string `json:"new"`
	Reloadable bool   `json:"reloadable"`
}

// String is "KEY: OLD → NEW".
func (c Change) String() string { return c.Key + ": " + c.Old + " → " + c.New }

// Diff lists the keys whose values differ, in the order of the table. Where a value comes from makes no difference.
func Diff(old, new *Config) []Change {
	var out []Change
	for _, k := range table {
		if was, is := k.text(old), k.text(new); was != is {
			out = append(out, Change{Key: k.Name, Old: was, New: is, Reloadable: k.Reloadable})
		}
	}
	return out
}

// Reloaded is the configuration that is in force after a reload from old to new without a restart: reloadable keys
// as in new, all others as in old. A Diff between it and a later load therefore still names what waits for a restart.
func Reloaded(old, new *Config) *Config {
	c := *new
	c.origins = maps.Clone(new.origins)
	for _, k := range table {
		if k.Reloadable || k.text(old) == k.text(new) {
			continue
		}
		k.copy(&c, old)
		names := []string{k.Name}
		for entry := range k.entries(new) {
			names = append(names, k.Name+"."+entry)
		}
		for _, name := range names {
			delete(c.origins, name)
		}
		copyOrigins(&c, old, k)
	}
	return &c
}

func copyOrigins(dst, src *Config, k *Key) {
	names := []string{k.Name}
	for entry := range k.entries(src) {
		names = append(names, k.Name+"."+entry)
	}
	for _, name := range names {
		if o, ok := src.origins[name]; ok {
			dst.origins[name] = o
		}
	}
}
