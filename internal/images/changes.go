package images

import (
	"encoding/json"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// applyChanges sets what Dockerfile instructions say ("CMD /bin/sh", one each;
// the reference is Docker's page on the Dockerfile). Those that would run or
// copy something are refused, as Docker refuses them.
func applyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, change := range changes {
		change = strings.TrimSpace(change)
		if change == "" {
			continue
		}
		word, rest := cutWord(change)
		if rest == "" {
			return newError(errdefs.ErrInvalidArgument, "change %q has no value", change)
		}
		if err := applyChange(c, strings.ToUpper(word), rest); err != nil {
			return newError(errdefs.ErrInvalidArgument, "cannot apply change %q: %w", change, err)
		}
	}
	return nil
}

// applyChange applies one instruction.
func applyChange(c *dockerspec.DockerOCIImageConfig, word, rest string) error {
	switch word {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "EXPOSE":
		return expose(c, strings.Fields(rest))
	case "VOLUME":
		for _, v := range list(rest) {
			if c.Volumes == nil {
				c.Volumes = map[string]struct{}{}
			}
			c.Volumes[v] = struct{}{}
		}
	case "ENV":
		return pairs(rest, func(key, value string) {
			c.Env = append(without(c.Env, key), key+"="+value)
		})
	case "LABEL":
		return pairs(rest, func(key, value string) {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[key] = value
		})
	default:
		return newError(errdefs.ErrInvalidArgument, "%s is not a valid change command", word)
	}
	return nil
}

// cutWord cuts off the first word.
func cutWord(s string) (word, rest string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

// command is an argument in exec form (a JSON list), or one for the shell.
func command(rest string) []string {
	var args []string
	if json.Unmarshal([]byte(rest), &args) == nil {
		return args
	}
	return []string{"/bin/sh", "-c", rest}
}

// list is a JSON list, or words.
func list(rest string) []string {
	var items []string
	if json.Unmarshal([]byte(rest), &items) == nil {
		return items
	}
	return strings.Fields(rest)
}

// expose adds ports ("80", "53/udp").
func expose(c *dockerspec.DockerOCIImageConfig, ports []string) error {
	for _, p := range ports {
		number, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		if strings.Trim(number, "0123456789-") != "" || number == "" {
			return newError(errdefs.ErrInvalidArgument, "%q is no port", p)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[number+"/"+strings.ToLower(proto)] = struct{}{}
	}
	return nil
}

// without is env without the variable key.
func without(env []string, key string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, key+"=") {
			out = append(out, e)
		}
	}
	return out
}

// pairs reads "key=value ..." with quotes, or the old form "key value".
func pairs(rest string, set func(key, value string)) error {
	if word, value := cutWord(rest); !strings.Contains(word, "=") {
		if value == "" {
			return newError(errdefs.ErrInvalidArgument, "%q has no value", word)
		}
		set(word, value)
		return nil
	}
	words, err := splitWords(rest)
	if err != nil {
		return err
	}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return newError(errdefs.ErrInvalidArgument, "%q is not of the form key=value", w)
		}
		set(key, value)
	}
	return nil
}

// splitWords splits at blanks outside of quotes. A backslash takes the meaning
// off the character that follows, but not within single quotes.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	escaped, inWord := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, newError(errdefs.ErrInvalidArgument, "%q has a quote that does not end", s)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
