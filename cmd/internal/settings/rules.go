package settings

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// crossCheck fills in what follows from other keys, and finds keys that contradict each other.
func (l *loader) crossCheck() {
	l.fillFallbacks()
	l.checkTopics()
	if t := l.s.Kafka.SessionTimeout; t < time.Second {
		l.clash("kafka.session_timeout", "is %v: want 1s at least, heartbeats are sent a few times in it", t)
	}
	l.checkTLS()
	l.checkSASL()
	l.checkSpillDir()
	if l.s.Source.Fence == "off" {
		l.s.Warnings = append(l.s.Warnings, "source.fence is off: a campaign may miss subscriptions committed just before it")
	}
}

func (l *loader) fillFallbacks() {
	if _, set := l.origins["kafka.instance_id"]; !set {
		l.s.Kafka.InstanceID = l.s.Source.Slot
		l.s.values["kafka.instance_id"] = l.s.Source.Slot
	}
	if _, set := l.origins["setup.dsn"]; !set {
		l.s.Setup.DSN = l.s.Source.DSN
		l.s.values["setup.dsn"] = l.s.Source.DSN.String()
	}
	if _, set := l.origins["setup.role"]; !set {
		l.s.Setup.Role = l.s.Source.DSN.User()
		l.s.values["setup.role"] = l.s.Setup.Role
	}
}

func (l *loader) checkTopics() {
	k := l.s.Kafka
	if k.Input != "" && k.Input == k.Output {
		l.clash("kafka.output", "is %q, as kafka.input: deliveries would be read as campaigns", k.Output)
	}
	if k.DeadLetter != "" && k.DeadLetter == k.Input {
		l.clash("kafka.dead_letter", "is %q, as kafka.input: dead letters would be read again for ever", k.DeadLetter)
	}
	if k.DeadLetter != "" && k.DeadLetter == k.Output {
		l.clash("kafka.dead_letter", "is %q, as kafka.output: readers of deliveries would meet dead letters", k.DeadLetter)
	}
}

func (l *loader) checkTLS() {
	tls := l.s.Kafka.TLS
	if !tls.Enabled {
		for _, key := range []string{"kafka.tls.ca_file", "kafka.tls.cert_file", "kafka.tls.key_file"} {
			if _, set := l.origins[key]; set {
				l.incomplete(key, "is set, but kafka.tls.enabled is false: set that to true, or remove this")
			}
		}
		return
	}
	l.needsPartner("kafka.tls.cert_file", "kafka.tls.key_file")
	l.needsPartner("kafka.tls.key_file", "kafka.tls.cert_file")
	if tls.CertFile == "" || tls.KeyFile == "" {
		return
	}
	if _, err := cryptotls.LoadX509KeyPair(tls.CertFile, tls.KeyFile); err != nil {
		l.clash("kafka.tls.key_file", "is no key of kafka.tls.cert_file: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
}

func (l *loader) needsPartner(key, partner string) {
	_, set := l.origins[key]
	if _, both := l.origins[partner]; set && !both {
		l.incomplete(key, "needs %s too", partner)
	}
}

func (l *loader) checkSASL() {
	_, user := l.origins["kafka.sasl.username"]
	_, password := l.origins["kafka.sasl.password"]
	_, file := l.origins[passwordFileKey]
	_, mechanism := l.origins["kafka.sasl.mechanism"]
	if password && file {
		l.clash(passwordFileKey, "is set, and kafka.sasl.password too: keep one")
	}
	if l.s.Kafka.SASL.Mechanism == "" {
		if !mechanism && (user || password || file) {
			l.incomplete("kafka.sasl.mechanism", "is needed with a user name or a password: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or off")
		}
		return
	}
	if !user {
		l.incomplete("kafka.sasl.username", "is needed for %s", l.s.Kafka.SASL.Mechanism)
	}
	if !password && !file {
		l.incomplete("kafka.sasl.password", "is needed for %s: set %s, or %s", l.s.Kafka.SASL.Mechanism, "TIFFIN_KAFKA_SASL_PASSWORD", passwordFileKey)
	}
	if l.s.Kafka.SASL.Mechanism == "PLAIN" && !l.s.Kafka.TLS.Enabled {
		l.s.Warnings = append(l.s.Warnings, "kafka.sasl.mechanism is PLAIN without kafka.tls.enabled: the password crosses the network readable")
	}
}

// checkSpillDir warns of a default that does not work: a container may have no such directory. One that is named must
// work, for who spills into it: whoever else reads the daemon's settings may be on another machine, or have another account.
func (l *loader) checkSpillDir() {
	if !l.needed(spillDirKey) {
		return
	}
	err := CheckSpillDir(l.s.Index.SpillDir)
	if _, set := l.origins[spillDirKey]; err != nil && set {
		l.clash(spillDirKey, "%v", err)
	} else if err != nil {
		l.s.Warnings = append(l.s.Warnings, fmt.Sprintf("index.spill_dir is not set, and the default %v: a large transaction of the source stays in memory", err))
	}
}

const spillDirKey = "index.spill_dir"

// CheckSpillDir returns why no file can be made in index.spill_dir; empty is the system's directory for temporary files.
func CheckSpillDir(path string) error {
	if path == "" {
		path = os.TempDir()
	}
	return writable(path)
}

// clash adds a fault of a key that could be read: what could not says nothing else.
func (l *loader) clash(key, format string, args ...any) {
	if slices.ContainsFunc(l.faults.List, func(f Fault) bool { return f.Key == key }) {
		return
	}
	l.faults.add(key, l.origins[key], format, args...)
}

// incomplete is for a key of Kafka's that asks for another one. Who needs no brokers is not asked for
// it: a shell often has the daemon's password, and the rest is in a file.
func (l *loader) incomplete(key, format string, args ...any) {
	if l.needed("kafka.brokers") {
		l.clash(key, format, args...)
	}
}

// topicName holds a name to Kafka's rule (org.apache.kafka.common.internals.Topic).
func topicName(text string) error {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if len(text) > 249 || text == "." || text == ".." || strings.ContainsFunc(text, func(r rune) bool { return !legal(r) }) {
		return fmt.Errorf("is %q: want at most 249 letters, digits, dots, _ and -", text)
	}
	return nil
}

// slotName holds a name to Postgres's rule (ReplicationSlotValidateName in slot.c).
func slotName(text string) error {
	legal := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' }
	if len(text) > 63 || strings.ContainsFunc(text, func(r rune) bool { return !legal(r) }) {
		return fmt.Errorf("is %q: want at most 63 lower-case letters, digits and _", text)
	}
	return nil
}

// identifier accepts what Postgres takes between double quotes (NAMEDATALEN in pg_config_manual.h).
func identifier(text string) error {
	if text == "" || len(text) > 63 || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("is %q: want a name of 1 to 63 bytes", text)
	}
	return nil
}

// plainText keeps control characters out of names that end up in logs and in Postgres.
func plainText(text string) error {
	if len(text) > 200 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("is %q: want at most 200 bytes without control characters", text)
	}
	return nil
}

func brokerAddress(text string) error {
	if text == "" {
		return errors.New("has an empty element: want HOST:PORT, …")
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || !validPort(port, 1) {
		return fmt.Errorf("has %q: want HOST:PORT", text)
	}
	return nil
}

func listenAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil || !validPort(port, 0) {
		return fmt.Errorf("is %q: want HOST:PORT, :PORT or off", text)
	}
	return nil
}

// collectorURL repeats nothing of what it refuses: it may hold a password.
func collectorURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("is no URL of a collector: want http://HOST:PORT or https://HOST:PORT, or off")
	case u.User != nil:
		return errors.New("holds a user: give what the collector asks for in the variable OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

func validPort(text string, lowest int) bool {
	port, err := strconv.Atoi(text)
	return err == nil && port >= lowest && port <= 65535
}

func readable(path string) error {
	_, err := os.ReadFile(path)
	if err != nil {
		return fileFault(path, err)
	}
	return nil
}

// certificates accepts a file that makes somebody trusted.
func certificates(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fileFault(path, err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("names %s, which holds no certificate in PEM", path)
	}
	return nil
}

// writable accepts a directory in which a file can be made.
func writable(path string) error {
	f, err := os.CreateTemp(path, "tiffin-")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if err != nil {
		return fmt.Errorf("names %s, where no file can be made: %w", path, err)
	}
	return nil
}

// fileFault repeats only what is a path for certain: where one belongs, the secret itself is put at times.
func fileFault(path string, err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\r\n") {
		return fmt.Errorf("names a file that cannot be read: %w: want an absolute path", err)
	}
	return fmt.Errorf("names %s, which cannot be read: %w", path, err)
}
