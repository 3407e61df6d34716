package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
)

// Bytes is a size.
type Bytes int64

// Ratio is a number from 0 to 1.
type Ratio float64

// String returns the size with a binary unit.
func (b Bytes) String() string { return humanize.IBytes(uint64(max(b, 0))) }

// parse reads a value into what it belongs to; the target's type says how.
func (k Key) parse(raw []string, into any) error {
	if brokers, ok := into.(*[]string); ok {
		return parseBrokers(raw, brokers)
	}
	text := strings.Join(raw, ",") // only brokers come as a list
	switch into := into.(type) {
	case *string:
		return k.parseText(text, into)
	case *bool:
		return parseBool(text, into)
	case *int:
		return parseCount(text, into)
	case *time.Duration:
		return parseDuration(text, into)
	case *Bytes:
		return parseBytes(text, into)
	case *Ratio:
		return parseRatio(text, into)
	case *slog.Level:
		return parseLevel(text, into)
	case *Table:
		return into.parse(text)
	case *DSN:
		return into.parse(text)
	case *Secret:
		*into = Secret(text)
		return nil
	case *passwordFile:
		return into.read(text)
	default:
		return fmt.Errorf("is of a kind that this program cannot read: %T", into)
	}
}

// parseText reads a text, one word of a few, or off.
func (k Key) parseText(text string, into *string) error {
	if k.off && isOff(text) {
		if slices.Contains(k.oneOf, "off") {
			*into = "off"
		}
		return nil
	}
	if len(k.oneOf) > 0 {
		i := slices.IndexFunc(k.oneOf, func(word string) bool { return strings.EqualFold(word, text) })
		if i < 0 {
			return fmt.Errorf("is %q: want %s", text, k.words())
		}
		*into = k.oneOf[i]
		return nil
	}
	if text == "" {
		return errors.New("is empty: give a value, or leave the key out")
	}
	if k.check != nil {
		if err := k.check(text); err != nil {
			return err
		}
	}
	*into = text
	return nil
}

func (k Key) words() string {
	words := k.oneOf
	if k.off && !slices.Contains(words, "off") {
		words = append(slices.Clone(words), "off")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// isOff accepts what YAML 1.1, and tools that write YAML, make of the word.
func isOff(text string) bool {
	switch strings.ToLower(text) {
	case "off", "false", "no":
		return true
	}
	return false
}

func parseBool(text string, into *bool) error {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		*into = true
	case "false", "no", "off", "0":
		*into = false
	default:
		return fmt.Errorf("is %q: want true or false", text)
	}
	return nil
}

func parseCount(text string, into *int) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("is %q: want a number from 1 to %d", text, math.MaxInt32)
	}
	*into = int(n)
	return nil
}

func parseDuration(text string, into *time.Duration) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("is %q: want a duration such as 30s or 5m", text)
	}
	*into = d
	return nil
}

func parseBytes(text string, into *Bytes) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return fmt.Errorf("is %q: want a size above 0 such as 64KiB, 256MiB or 8GiB", text)
	}
	*into = Bytes(n)
	return nil
}

func parseRatio(text string, into *Ratio) error {
	ratio, err := strconv.ParseFloat(text, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) { // NaN is neither
		return fmt.Errorf("is %q: want a number from 0 to 1", text)
	}
	*into = Ratio(ratio)
	return nil
}

func parseLevel(text string, into *slog.Level) error {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(text)]
	if !ok {
		return fmt.Errorf("is %q: want debug, info, warn or error", text)
	}
	*into = level
	return nil
}

func parseBrokers(raw []string, into *[]string) error {
	var brokers []string
	for _, text := range raw {
		for broker := range strings.SplitSeq(text, ",") {
			broker = strings.TrimSpace(broker)
			if err := brokerAddress(broker); err != nil {
				return err
			}
			brokers = append(brokers, broker)
		}
	}
	if len(brokers) == 0 {
		return errors.New("is an empty list: want HOST:PORT, …")
	}
	*into = brokers
	return nil
}

// Table is a table's name with its schema.
type Table struct {
	Schema, Name string
}

// Identifier returns the name as pgx quotes it.
func (t Table) Identifier() pgx.Identifier { return pgx.Identifier{t.Schema, t.Name} }

// String returns the name quoted for SQL.
func (t Table) String() string { return t.Identifier().Sanitize() }

// parse reads a name as Postgres does: a part without double quotes is folded to lower case,
// a doubled quote inside quotes is one. A name without a schema is in public.
func (t *Table) parse(text string) error {
	first, rest, err := sqlName(text)
	if err != nil {
		return err
	}
	if rest == "" {
		*t = Table{Schema: "public", Name: first}
		return nil
	}
	second, rest, err := sqlName(strings.TrimPrefix(rest, "."))
	switch {
	case err != nil:
		return err
	case rest != "":
		return fmt.Errorf("is %q: want schema.table", text)
	}
	*t = Table{Schema: first, Name: second}
	return nil
}

// sqlName takes one name off the front of a text; what follows is empty or begins with a dot.
func sqlName(text string) (name, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		name, rest, err = quotedName(text)
	} else {
		name, rest, err = plainName(text)
	}
	switch {
	case err != nil:
		return "", "", err
	case rest != "" && rest[0] != '.':
		return "", "", fmt.Errorf("is %q: want schema.table", text)
	}
	return name, rest, identifier(name)
}

func quotedName(text string) (name, rest string, err error) {
	var b strings.Builder
	rest = text[1:]
	for {
		part, after, closed := strings.Cut(rest, `"`)
		if !closed {
			return "", "", fmt.Errorf("has a double quote without its pair: %s", text)
		}
		b.WriteString(part)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, nil
		}
		b.WriteByte('"')
		rest = after[1:]
	}
}

func plainName(text string) (name, rest string, err error) {
	name, _, _ = strings.Cut(text, ".")
	if strings.ContainsAny(name, "\"'; \t\r\n\\()$-") {
		return "", "", fmt.Errorf("is %q: want schema.table, with double quotes around a name of more than letters, digits and _", text)
	}
	return strings.ToLower(name), text[len(name):], nil
}

// passwordFile is where kafka.sasl.password_file leads: its content becomes the password.
type passwordFile struct{ into *SASL }

const passwordFileKey = "kafka.sasl.password_file"

func (p *passwordFile) read(path string) (err error) {
	p.into.file = path
	p.into.Password, err = readPassword(path)
	return err
}

func readPassword(path string) (Secret, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fileFault(path, err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return "", fmt.Errorf("names %s, which is empty", path)
	}
	return Secret(password), nil
}
