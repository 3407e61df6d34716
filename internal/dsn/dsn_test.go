package dsn

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever cannot be understood may be, or hold, the password.
func TestFaultsRepeatNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u:hunter2@h:port/d", "postgres://u:hunter2%zz@h/d", "postgres://u:hunter2@h/d?sslmode=maybe", "hunter2", "host=h password=hunter2 port=x",
		"password='hunter2", "postgres:/u:hunter2@h", "host=h password=hunter2 connect_timeout=soon", "host=h password=a`:hunter2 port=x", "host=h password=a`: hunter2 port=x",
		"host=h password=hunter2 sslmode=verify-full sslrootcert=/nowhere/ca.pem", "host=h password=one hunter2", "postgres://u:one:hunter2@h:port", "postgres://u@one:hunter2@h",
		// All of these mean something, and not what was meant.
		"postgres://u:1/hunter2@h/d", "postgres://u:1?hunter2@h/d", "postgres://u:1#hunter2@h/d", "postgresql://u:1/?hunter2@h=d",
	} {
		_, err := Parse(text)
		_, pooled := ParsePool(text)
		for _, err := range []error{err, pooled} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
	if _, err := ParsePool("host=h password=hunter2 pool_max_conns=few"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestFaultNamesTheCause(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"host=h sslmode=maybe": "sslmode",
		"host=h port=70000":    "invalid port",
		"host=h sslmode=verify-full sslrootcert=/nowhere.pem": "/nowhere.pem",
		"postgres://u:1/2@h/d":                                "%2F",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestUsualNamesAreUnderstood(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u:p@h:1/d?sslmode=disable", "postgres://h/d?user=me@server", "postgres://u:p%40%2F@h1:1,h2:2/d%40?application_name=a@b",
		"postgresql:///d?host=/run/postgresql", "host=h user=me@server password='a@/?#'", "postgres://u@h",
	} {
		if _, err := Parse(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Not to be read anywhere else: the rule is only as good as its keeping.
func TestEveryNameIsReadHere(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	for _, dir := range []string{"cdc", "cache", "stream", "migrations", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "internal/dsn/") {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), ".ParseConfig(") {
				t.Errorf("%s reads a DSN with pgx's errors: use dsn.Parse", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A pool outlives passwords and certificates: each of its connections is made with those of the moment.
func TestPoolRenewsItsSecretsAtEachConnection(t *testing.T) {
	t.Parallel()
	passfile := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		if err := os.WriteFile(passfile, []byte("h:*:*:*:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	pool, err := ParsePool("host=h,h2 user=u dbname=d sslmode=prefer pool_max_conns=3 passfile=" + passfile)
	if err != nil {
		t.Fatal(err)
	}
	config := pool.ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "kept"
	was := config.TLSConfig
	write("second")
	if err := pool.BeforeConnect(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if config.Password != "second" || config.TLSConfig == was || config.RuntimeParams["application_name"] != "kept" || config.Host != "h" || len(config.Fallbacks) != 3 {
		t.Errorf("%q, %v, %v, %s and %d more", config.Password, config.TLSConfig == was, config.RuntimeParams, config.Host, len(config.Fallbacks))
	}
}
