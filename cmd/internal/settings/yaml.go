package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/knadh/koanf/maps"
	"go.yaml.in/yaml/v3"
)

// textYAML is koanf's parser of the file. It keeps every scalar as the text that was written:
// YAML's own reading would turn a password of 0123 into 83 and a slot named 1e3 into 1000.
// It remembers the line of each key, and finds keys given twice.
type textYAML struct {
	path    string
	origins map[string]string // key -> file:line
	faults  []Fault
	flat    map[string]any
	bare    map[string]bool // unknown names that have no value
}

// Unmarshal implements koanf.Parser.
func (p *textYAML) Unmarshal(text []byte) (map[string]any, error) {
	p.origins, p.flat, p.bare = map[string]string{}, map[string]any{}, map[string]bool{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.fault("", &document, "holds more than one document: keep one")
	}
	root := document.Content[0]
	switch {
	case root.Kind == yaml.MappingNode:
		p.section("", root)
	case root.Kind != yaml.ScalarNode || root.Tag != "!!null":
		p.fault("", root, "want keys and values, such as `kafka: {brokers: HOST:PORT}`")
	}
	return maps.Unflatten(p.flat, "."), nil
}

// Marshal implements koanf.Parser; settings are never written.
func (p *textYAML) Marshal(map[string]any) ([]byte, error) {
	return nil, errors.New("settings are not written")
}

func (p *textYAML) section(prefix string, node *yaml.Node) {
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		path := name.Value
		if prefix != "" {
			path = prefix + "." + path
		}
		if line, twice := lines[name.Value]; twice {
			p.fault(path, name, "was given before, at line %d", line)
			continue
		}
		lines[name.Value] = name.Line
		switch {
		case value.Kind == yaml.AliasNode: // one may hold itself; nobody needs them here
			p.fault(path, name, "is an alias of YAML: write the value out")
		case value.Kind == yaml.MappingNode && len(value.Content) == 0:
			p.empty(path, name)
		case value.Kind == yaml.MappingNode && known(path):
			p.fault(path, name, "is a value, not a section")
		case value.Kind == yaml.MappingNode:
			p.section(path, value)
		case value.Tag == "!!null": // an empty section, or a key left to its default
			p.empty(path, name)
		default:
			p.value(path, name, value)
		}
	}
}

// empty accepts a name without a value where a key or a section of that name exists.
func (p *textYAML) empty(path string, name *yaml.Node) {
	if !known(path) && !isSection(path) {
		p.origins[path], p.bare[path] = p.where(name), true
	}
}

// shown is how a fault names an unknown key. Of a mistyped line anything may have become the key,
// the password too (`password:hunter2` in braces): nothing is repeated that no key is made of, and
// of a name without a value only the section that it stands in.
func (p *textYAML) shown(path string) string {
	if section := strings.LastIndex(path, "."); p.bare[path] && section > 0 {
		return path[:section+1] + "…"
	}
	if i := strings.IndexFunc(path, func(r rune) bool {
		return !strings.ContainsRune("._-", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}); i >= 0 {
		return path[:i] + "…"
	}
	return path
}

func (p *textYAML) value(path string, name, value *yaml.Node) {
	if first, twice := p.origins[path]; twice {
		p.fault(path, name, "was given before, at %s", first)
		return
	}
	if isSection(path) {
		p.fault(path, name, "is a section: its keys go below it")
		return
	}
	p.origins[path] = p.where(name)
	if !known(path) {
		return // the caller reports it, with what may have been meant
	}
	switch value.Kind {
	case yaml.ScalarNode:
		p.flat[path] = value.Value
	case yaml.SequenceNode:
		if !isList(path) {
			p.fault(path, value, "is one value, not a list")
			return
		}
		list := make([]string, 0, len(value.Content))
		for _, item := range value.Content {
			if item.Kind != yaml.ScalarNode {
				p.fault(path, item, "want a list of texts")
				return
			}
			list = append(list, item.Value)
		}
		p.flat[path] = list
	}
}

func (p *textYAML) fault(key string, node *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, Fault{Key: key, Where: p.where(node), Problem: fmt.Sprintf(format, args...)})
}

func (p *textYAML) where(node *yaml.Node) string { return fmt.Sprintf("%s:%d", p.path, node.Line) }

func isList(name string) bool {
	i := slices.IndexFunc(Keys(), func(key Key) bool { return key.Name == name })
	_, list := Keys()[i].into(new(Settings)).(*[]string)
	return list
}

func isSection(path string) bool {
	for _, name := range keyNames() {
		if strings.HasPrefix(name, path+".") {
			return true
		}
	}
	return false
}
