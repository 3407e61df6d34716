package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// newDirectory makes the directory of one server, open to the account only. It lies below parent,
// or below the system's directory for temporary files.
func newDirectory(parent, kind string, as *account) (string, error) {
	dir, err := os.MkdirTemp(parent, "tiffin-"+kind+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", kind, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", kind, err)
	}
	if err := as.own(dir); err != nil {
		return "", fmt.Errorf("give %s to uid %d: %w", dir, as.uid, err)
	}
	return dir, nil
}

// cacheDirectory is where downloads are kept between runs.
func cacheDirectory() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; set HOME or XDG_CACHE_HOME", err)
	}
	return makeCache(base)
}

// sharedCacheDirectory is the same for what a server's account must read: root's own cache is
// closed to it, so root uses the machine's.
func sharedCacheDirectory(as *account) (string, error) {
	if as == nil {
		return cacheDirectory()
	}
	return makeCache("/var/cache")
}

func makeCache(base string) (string, error) {
	dir := filepath.Join(base, "tiffin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

// keepFile writes a file of the cache that appears at once and complete, whoever else writes it.
func keepFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
