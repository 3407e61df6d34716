package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// NewestPostgres is the newest major version that can be downloaded.
const NewestPostgres = "18"

// Unmended is the last release of 16 whose walsenders lose changes of a table that was published beside an open
// transaction.
const Unmended = "16.8"

// postgresVersions are the releases that a major version is downloaded as.
func postgresVersions() map[string]embeddedpostgres.PostgresVersion {
	return map[string]embeddedpostgres.PostgresVersion{
		"14": embeddedpostgres.V14, "15": embeddedpostgres.V15, "16": embeddedpostgres.V16,
		"17": embeddedpostgres.V17, NewestPostgres: embeddedpostgres.V18,
		Unmended: Unmended + ".0",
	}
}

// installations is where Debian keeps its servers, off PATH: VERSION/bin.
const installations = "/usr/lib/postgresql"

// postgresBinaries returns the directory of a major version's server, installed or downloaded to
// the cache. Without a version: of the newest installed, of one on PATH, or else of the newest.
func postgresBinaries(ctx context.Context, version string, as *account) (string, error) {
	if version != "" {
		bin := filepath.Join(installations, version, "bin")
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err == nil {
			return bin, nil
		}
		return downloadPostgres(ctx, version, as)
	}
	if dir, ok := installedPostgres(installations); ok {
		return dir, nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	return downloadPostgres(ctx, NewestPostgres, as)
}

// installedPostgres finds the highest version below root, laid out as VERSION/bin.
func installedPostgres(root string) (string, bool) {
	newest, dir := -1, ""
	servers, _ := filepath.Glob(filepath.Join(root, "*", "bin", "postgres")) // the pattern is well formed
	for _, server := range servers {
		bin := filepath.Dir(server)
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		if err != nil || version <= newest {
			continue
		}
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err == nil {
			newest, dir = version, bin
		}
	}
	return dir, newest >= 0
}

// downloadPostgres fetches the binaries from Maven's repository, once a machine.
func downloadPostgres(ctx context.Context, major string, as *account) (string, error) {
	version, known := postgresVersions()[major]
	if !known {
		return "", fmt.Errorf("download postgres %s: no such major version is known; install it to %s/%s", major, installations, major)
	}
	cache, err := sharedCacheDirectory(as)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, "postgres-"+string(version))
	bin := filepath.Join(final, "bin")
	unlock, err := lockFile(ctx, final+".lock")
	if err != nil {
		return "", fmt.Errorf("download postgres: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}
	staging, err := os.MkdirTemp(cache, "postgres-download-")
	if err != nil {
		return "", fmt.Errorf("make a directory to download postgres to: %w", err)
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := fetchPostgres(ctx, version, staging); err != nil {
		return "", fmt.Errorf("download postgres %s: %w; or install it (Debian: apt-get install postgresql)", version, err)
	}
	if err := os.Rename(filepath.Join(staging, "server"), final); err != nil {
		return "", fmt.Errorf("keep the downloaded postgres: %w", err)
	}
	return bin, nil
}

// fetchPostgres has embedded-postgres download and unpack the binaries to staging/server. The library
// offers no way to stop there: it goes on to make a cluster, which fails at once because the data
// directory would lie below a file (and, as root, because initdb refuses root).
func fetchPostgres(ctx context.Context, version embeddedpostgres.PostgresVersion, staging string) error {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return err
	}
	blocker := filepath.Join(staging, "no-directory")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		return err
	}
	server := filepath.Join(staging, "server")
	defer http.DefaultClient.CloseIdleConnections() // that is what the library uses; its goroutines would stay
	started := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(version).Port(uint32(ports[0])).Logger(io.Discard).
		CachePath(staging).RuntimePath(filepath.Join(staging, "runtime")).
		BinariesPath(server).DataPath(filepath.Join(blocker, "data"))).Start()
	if _, err := os.Stat(filepath.Join(server, "bin", "postgres")); err != nil {
		return errors.Join(started, err)
	}
	return os.Chmod(server, 0o755)
}
