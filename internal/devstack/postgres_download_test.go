package devstack

import (
	"os"
	"testing"
)

// On a machine without PostgreSQL the downloaded one serves as well, also when this process is root.
// It costs a download of some 20 MB, so it runs where it is asked for.
func TestPostgresIsDownloadedWhereThereIsNone(t *testing.T) {
	t.Parallel()
	if os.Getenv("DEVSTACK_DOWNLOAD") == "" {
		t.Skip("set DEVSTACK_DOWNLOAD=1 to download PostgreSQL's binaries")
	}
	as, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := downloadPostgres(t.Context(), NewestPostgres, as)
	if err != nil {
		t.Fatal(err)
	}
	again, err := downloadPostgres(t.Context(), NewestPostgres, as)
	if err != nil || again != bin {
		t.Fatalf("the second time %q, %v; want %q from the cache", again, err, bin)
	}
	s := startPostgres(t, PostgresOptions{BinDir: bin})
	if got := query(t, s.DSN("postgres"), "SHOW wal_level"); got != "logical" {
		t.Fatalf("wal_level is %s", got)
	}
}
