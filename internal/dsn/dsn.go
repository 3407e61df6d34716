// Package dsn reads the names of databases, with errors that are fit for a log: they repeat
// nothing of the text, for in a text that cannot be understood nobody knows where the password is.
// pgx's own errors repeat it with what looks like a password masked, so all DSNs are read here.
package dsn

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Parse reads a URL or key=value; PG* variables fill what it lacks.
func Parse(text string) (*pgx.ConnConfig, error) {
	if misplaced(text) {
		return nil, errMisplaced
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, fault(err, text)
	}
	exact(config)
	return config, nil
}

// ParsePool reads the same for a pool, which knows some keys more (pool_max_conns and others). The pool
// renews its secrets at each connection.
func ParsePool(text string) (*pgxpool.Config, error) {
	if misplaced(text) {
		return nil, errMisplaced
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, fault(err, text)
	}
	exact(config.ConnConfig)
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return renew(c, text) }
	return config, nil
}

// exact has a session exchange texts as they are, whatever encoding its role, database or server
// prefers (from a COPY the same bytes as from the log), and fail rather than leave rows out where row-level
// security holds for it.
func exact(config *pgx.ConnConfig) {
	config.RuntimeParams["client_encoding"], config.RuntimeParams["row_security"] = "UTF8", "off"
}

// renew reads anew what the text takes from files: the password (passfile, service file) and the
// certificates and keys. All else of config stays as it was made.
func renew(config *pgx.ConnConfig, text string) error {
	fresh, err := Parse(text)
	if err != nil {
		return err
	}
	config.Host, config.Port = fresh.Host, fresh.Port // each has a TLS configuration that fits no other
	config.Password, config.TLSConfig, config.Fallbacks = fresh.Password, fresh.TLSConfig, fresh.Fallbacks
	return nil
}

const forms = "want postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full or `host=… user=… dbname=…`"

var errMisplaced = errors.New("cannot be understood: an @ stands behind the host; a password that holds / ? # or @ is written with %2F %3F %23 or %40")

// IsURL reports whether the text is a URL, and not key=value.
func IsURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// misplaced recognises a URL of which the password's end is taken for a database, a parameter's name
// or nothing at all (postgres://u:12/34@host/d), so that servers and errors would be told it.
func misplaced(text string) bool {
	if !IsURL(text) {
		return false
	}
	_, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return false
	}
	rest, fragment, _ := strings.Cut(rest[end:], "#")
	path, query, _ := strings.Cut(rest, "?")
	if strings.Contains(path, "@") || strings.Contains(fragment, "@") {
		return true
	}
	for pair := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(pair, "="); strings.Contains(name, "@") {
			return true
		}
	}
	return false
}

func fault(err error, text string) error {
	if err == nil {
		return nil
	}
	known, ok := err.(*pgconn.ParseConfigError) //nolint:errorlint // pgx wraps nothing around it, and its text is not for showing
	if !ok {
		return fmt.Errorf("cannot be understood: %s", forms)
	}
	return fmt.Errorf("cannot be understood (%s): %s", problem(known, text), forms)
}

// problem returns what pgx found wrong, without the DSN that its error repeats. The inner error is
// left out where it comes from parsing, which quotes what it could not parse.
func problem(err *pgconn.ParseConfigError, text string) string {
	message := err.Error()
	if i := strings.LastIndex(message, "`: "); i >= 0 {
		message = message[i+len("`: "):]
	}
	if what, _, inner := strings.Cut(message, " ("); inner && strings.HasPrefix(what, "failed to parse") {
		message = what
	}
	if text != "" {
		message = strings.ReplaceAll(message, text, "xxxxx")
	}
	return message
}
