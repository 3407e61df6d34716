package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// Input is where settings come from.
type Input struct {
	// File is the path of the YAML file; empty for none.
	File string
	// Environ is the environment as os.Environ gives it. PG* variables are read by pgx from
	// the process itself.
	Environ []string
	// Needs are the keys that must be set; nil means every required key. A command that
	// touches one database need not be told of the other.
	Needs []string
}

// Load reads the settings: defaults, then the file, then the environment. Its error is a
// *Faults that holds everything wrong at once.
func Load(in Input) (*Settings, error) {
	l := loader{
		in:      in,
		layers:  koanf.New("."),
		origins: map[string]string{},
		s:       &Settings{values: map[string]string{}},
	}
	l.readFile()
	l.readEnvironment()
	for _, key := range Keys() {
		l.assign(key)
	}
	l.crossCheck()
	if len(l.faults.List) > 0 {
		l.faults.Log = l.s.Log
		return nil, &l.faults
	}
	return l.s, nil
}

type loader struct {
	in      Input
	layers  *koanf.Koanf
	origins map[string]string // key -> where its value came from
	faults  Faults
	s       *Settings
}

func (l *loader) readFile() {
	if l.in.File == "" {
		return
	}
	parser := &textYAML{path: l.in.File}
	err := l.layers.Load(file.Provider(l.in.File), parser)
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &pathErr):
		l.faults.add("", l.in.File, "cannot be read: %v: name an existing file with -c, or leave -c out", pathErr.Err)
		return
	case err != nil:
		l.faults.add("", l.in.File, "is no YAML: %s", yamlProblem(err))
		return
	}
	l.faults.List = append(l.faults.List, parser.faults...)
	for name, where := range parser.origins {
		l.origins[name] = where
		if !known(name) {
			l.faults.add(parser.shown(name), where, "unknown key%s", didYouMean(name, keyNames()))
		}
	}
}

// yamlProblem leaves out the one word of the file that the parser repeats: an anchor's name, which is
// a password that begins with *.
func yamlProblem(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if before, _, found := strings.Cut(text, "anchor '"); found {
		return before + "anchor: a text that begins with * belongs in quotes"
	}
	return text
}

func (l *loader) readEnvironment() {
	set := map[string]any{}
	var unknown []string
	for _, entry := range l.in.Environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		i := slices.IndexFunc(Keys(), func(k Key) bool { return k.Env() == name })
		if i < 0 {
			unknown = append(unknown, name)
			continue
		}
		// An empty variable is how compose files and pipelines write "not set".
		if value == "" {
			continue
		}
		key := Keys()[i].Name
		set[key] = value
		l.origins[key] = name
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		l.s.Warnings = append(l.s.Warnings, fmt.Sprintf("unknown environment variable %s is ignored%s", name, didYouMean(name, envNames())))
	}
	// Loading a map cannot fail: there is nothing to read or parse.
	if err := l.layers.Load(confmap.Provider(set, "."), nil); err != nil {
		l.faults.add("", "environment", "%v", err)
	}
}

// assign reads the value of one key into the settings.
func (l *loader) assign(key Key) {
	raw, set := l.raw(key)
	where := l.origins[key.Name]
	if !set {
		raw = []string{key.Default}
	}
	l.s.values[key.Name] = key.shown(raw)
	switch {
	case set || key.Default != "":
	case l.fromLibpq(key.Name): // parsed empty, so that a fault in PG* is found too
		where = "PG* variables"
	case key.Required && l.needed(key.Name):
		l.faults.add(key.Name, "", "is required: set it in the file or by %s", key.Env())
		return
	default:
		return
	}
	if err := key.parse(raw, key.into(l.s)); err != nil {
		l.faults.add(key.Name, where, "%v", err)
	}
}

// raw returns the key's value as text; a list has several.
func (l *loader) raw(key Key) ([]string, bool) {
	switch value := l.layers.Get(key.Name).(type) {
	case string:
		return []string{value}, true
	case []string:
		return value, true
	default:
		return nil, false
	}
}

func (l *loader) needed(name string) bool {
	return l.in.Needs == nil || slices.Contains(l.in.Needs, name)
}

// fromLibpq reports whether an absent DSN is complete all the same: the contract allows the
// usual PG* variables in its place, and a host or a service is what makes them a choice.
func (l *loader) fromLibpq(name string) bool {
	if name != "source.dsn" && name != "feedback.dsn" {
		return false
	}
	return slices.ContainsFunc(l.in.Environ, func(entry string) bool {
		name, value, _ := strings.Cut(entry, "=")
		return value != "" && (name == "PGHOST" || name == "PGSERVICE")
	})
}

func known(name string) bool { return slices.Contains(keyNames(), name) }

func keyNames() []string {
	var names []string
	for _, key := range Keys() {
		names = append(names, key.Name)
	}
	return names
}

func envNames() []string {
	var names []string
	for _, key := range Keys() {
		names = append(names, key.Env())
	}
	return names
}
