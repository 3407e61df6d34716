package devstack

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// create makes the cluster: initdb, postgresql.conf, pg_hba.conf and the certificates.
func (s *Postgres) create(ctx context.Context) error {
	if err := s.initdb(ctx); err != nil {
		return err
	}
	if s.options.TLS {
		if err := s.writeCertificates(); err != nil {
			return err
		}
	}
	conf, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open postgresql.conf: %w", err)
	}
	_, err = conf.WriteString(s.configuration())
	if closed := conf.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write postgresql.conf: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(s.hostRules()), 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	if err := s.as.own(s.dir); err != nil {
		return fmt.Errorf("give %s to the server: %w", s.dir, err)
	}
	return nil
}

func (s *Postgres) initdb(ctx context.Context) error {
	args := []string{
		"-D", s.data(), "-U", s.Username(), "--encoding=UTF8", "--locale=C",
		"--auth=" + string(s.auth()), "--no-sync", "--no-instructions",
	}
	if password := s.Password(); password != "" {
		file := filepath.Join(s.dir, "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			return fmt.Errorf("write the superuser's password: %w", err)
		}
		if err := s.as.own(file); err != nil {
			return fmt.Errorf("give the password file to the server: %w", err)
		}
		args = append(args, "--pwfile="+file)
	}
	err := runToEnd(ctx, command{
		name: "initdb", path: filepath.Join(s.bin, "initdb"), args: args,
		env: s.environment(), dir: s.dir, as: s.as, death: syscall.SIGKILL,
	})
	if err != nil && s.as != nil {
		return fmt.Errorf("%w\n(run as uid %d, which must be able to enter every directory of %s)", err, s.as.uid, s.dir)
	}
	return err
}

func (s *Postgres) writeCertificates() error {
	now := time.Now()
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	pair, err := ca.issue("postgres", now)
	if err != nil {
		return err
	}
	if err := pair.write(s.dir, "server"); err != nil {
		return err
	}
	if err := os.WriteFile(s.CAFile(), ca.pem, 0o644); err != nil {
		return fmt.Errorf("write the authority's certificate: %w", err)
	}
	return nil
}

// configuration is appended to initdb's postgresql.conf, where the last mention of a setting counts.
func (s *Postgres) configuration() string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		// Files of the data directory, which Close removes; "posix" would leave some in /dev/shm after Kill.
		"dynamic_shared_memory_type": "mmap",
		"wal_level":                  "logical",
		"max_connections":            "200",
		"max_replication_slots":      "50",
		"max_wal_senders":            "50",
		"max_prepared_transactions":  "10",
		"synchronous_commit":         "on",
		"fsync":                      "off",
		"logging_collector":          "off",
	}
	if s.options.Durable {
		settings["fsync"] = "on"
	}
	if s.options.TLS {
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = filepath.Join(s.dir, "server.crt")
		settings["ssl_key_file"] = filepath.Join(s.dir, "server.key")
	}
	maps.Copy(settings, s.options.Settings)
	var b strings.Builder
	b.WriteString("\n# devstack\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return b.String()
}

func (s *Postgres) hostRules() string {
	kind := "host"
	if s.options.TLS {
		kind = "hostssl"
	}
	return fmt.Sprintf("%[1]s all all 127.0.0.1/32 %[2]s\n%[1]s replication all 127.0.0.1/32 %[2]s\n", kind, s.auth())
}
