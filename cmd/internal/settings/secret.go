package settings

import (
	"log/slog"
	"net/url"
	"regexp"
	"strings"

	"example.com/tiffin/internal/dsn"
)

// mask stands for a secret, as in net/url.
const mask = "xxxxx"

// Secret is a text that shows itself only through Reveal.
type Secret string

// Reveal returns the secret.
func (s Secret) Reveal() string { return string(s) }

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString masks the secret.
func (s Secret) GoString() string { return s.String() }

// LogValue masks the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// DSN names a database, as a URL or key=value; it may hold passwords, and shows them only
// through Reveal.
type DSN string

// Reveal returns the DSN with its passwords.
func (d DSN) Reveal() string { return string(d) }

// String returns the DSN with its passwords masked.
func (d DSN) String() string { return maskDSN(string(d)) }

// GoString masks as String does.
func (d DSN) GoString() string { return d.String() }

// LogValue masks as String does.
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText masks as String does.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// User returns the role that the DSN, with the PG* variables, connects as.
func (d DSN) User() string {
	config, err := dsn.Parse(string(d))
	if err != nil {
		return ""
	}
	return config.User
}

// parse accepts what pgx accepts. Its error repeats nothing of the text.
func (d *DSN) parse(text string) error {
	*d = DSN(text)
	_, err := dsn.Parse(text)
	return err
}

func maskDSN(text string) string {
	if text == "" {
		return ""
	}
	if _, err := dsn.Parse(text); err != nil {
		return mask // where it ends up unparsed nobody knows which part is the password
	}
	if dsn.IsURL(text) {
		return maskURL(text)
	}
	// libpq: key = value, white space around the sign, a value in single quotes with \' and \\.
	words := regexp.MustCompile(`(?i)((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)`)
	return words.ReplaceAllString(text, "${1}"+mask)
}

func maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return mask // pgx accepts several hosts, which net/url does not always
	}
	query := u.Query()
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, mask)
		}
	}
	u.RawQuery = query.Encode()
	return u.Redacted()
}
