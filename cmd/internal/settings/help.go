package settings

import (
	"fmt"
	"strings"
)

// Help returns the settings as a section of a command's help text.
func Help() string {
	var b strings.Builder
	b.WriteString("Settings, in the file of -c or as variables (TIFFIN_ and the key in capitals, . as _; the environment wins):\n")
	for _, key := range Keys() {
		fmt.Fprintf(&b, "  %-34s %s\n  %-34s   %s\n", key.Name, key.shownDefault(), "", key.Doc)
	}
	return b.String()
}

func (k Key) shownDefault() string {
	switch {
	case k.Required:
		return "(required)"
	case k.Default != "":
		return k.Default
	default:
		return "(" + k.Fallback + ")"
	}
}

// shown returns a value for people: secrets masked.
func (k Key) shown(raw []string) string {
	text := strings.Join(raw, ",")
	switch {
	case text == "":
		return ""
	case k.secret:
		return mask
	case strings.HasSuffix(k.Name, ".dsn"):
		return maskDSN(text)
	default:
		return text
	}
}
