package logopts

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Info is what a log driver knows of a container. The names are those that the
// option tag may use, as with Docker: {{.ID}}, {{.Name}}, {{.ImageName}}, …
type Info struct {
	Config              map[string]string // the log options
	ContainerID         string
	ContainerName       string // with a slash in front
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string // "sha256:…"
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	DaemonName          string // "lrd"
}

// ID is the container's ID in short.
func (i *Info) ID() string { return short(i.ContainerID) }

// FullID is the container's ID.
func (i *Info) FullID() string { return i.ContainerID }

// Name is the container's name.
func (i *Info) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the image's ID in short.
func (i *Info) ImageID() string { return short(i.ContainerImageID) }

// ImageFullID is the image's ID.
func (i *Info) ImageFullID() string { return i.ContainerImageID }

// ImageName is the image as the container was told it.
func (i *Info) ImageName() string { return i.ContainerImageName }

// Command is the command line of the container.
func (i *Info) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// Hostname is this machine's name.
func (i *Info) Hostname() (string, error) { return os.Hostname() }

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// DefaultTag is what the drivers that always have a tag take when none is asked for.
const DefaultTag = "{{.ID}}"

// tagFunctions are what Docker's templates know besides those of text/template.
var tagFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
	"truncate": func(s string, n int) string { return s[:min(len(s), max(n, 0))] },
}

// Tag is the option tag, or else the template otherwise, with what is in
// braces filled in.
func (i *Info) Tag(otherwise string) (string, error) {
	text := i.Config["tag"]
	if text == "" {
		text = otherwise
	}
	if text == "" {
		return "", nil
	}
	t, err := template.New("tag").Funcs(tagFunctions).Parse(text)
	if err != nil {
		return "", fmt.Errorf("cannot read the tag: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, i); err != nil {
		return "", fmt.Errorf("cannot make the tag: %w", err)
	}
	return b.String(), nil
}

// checkTag fills a tag in for a container that is none.
func checkTag(v string) error {
	i := Info{Config: map[string]string{"tag": v}, ContainerID: strings.Repeat("0", 64), ContainerName: "/name"}
	_, err := i.Tag("")
	return err
}

// Attributes are the labels and the environment variables that the options
// choose. key, if it is not nil, makes their names fit for the driver.
func (i *Info) Attributes(key func(string) string) (map[string]string, error) {
	if key == nil {
		key = func(s string) string { return s }
	}
	env := map[string]string{}
	for _, e := range i.ContainerEnv {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}
	chosen := map[string]string{}
	for _, from := range []struct {
		values map[string]string
		option string
	}{{i.ContainerLabels, "labels"}, {env, "env"}} {
		for _, name := range strings.Split(i.Config[from.option], ",") {
			if v, ok := from.values[name]; ok {
				chosen[key(name)] = v
			}
		}
		pattern := i.Config[from.option+"-regex"]
		if pattern == "" {
			continue
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s-regex: %w", from.option, err)
		}
		for name, v := range from.values {
			if re.MatchString(name) {
				chosen[key(name)] = v
			}
		}
	}
	return chosen, nil
}

// AllAttributes are the Attributes, and the tag if one was asked for.
func (i *Info) AllAttributes() (map[string]string, error) {
	attrs, err := i.Attributes(nil)
	if err != nil {
		return nil, err
	}
	tag, err := i.Tag("")
	if err != nil {
		return nil, err
	}
	if tag != "" {
		attrs["tag"] = tag
	}
	return attrs, nil
}

// Details is what `docker logs --details` shows in front of a line: the
// attributes, sorted and escaped, and a space.
func Details(attrs map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		list = append(list, url.QueryEscape(k)+"="+url.QueryEscape(attrs[k]))
	}
	return strings.Join(list, ",") + " "
}
