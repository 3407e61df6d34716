package checkup

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// People know a certificate by its names, and need to hear which of them did not fit.
func TestHandshakeNamesTheCertificateAndTheMismatch(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	for _, c := range []struct {
		config  *tls.Config
		now     time.Time
		verdict Verdict
		text    string
		fix     string
	}{
		{&tls.Config{RootCAs: trusted, ServerName: "example.com"}, server.Certificate().NotBefore, OK, "example.com", ""},
		{&tls.Config{RootCAs: trusted, ServerName: "example.com"}, server.Certificate().NotAfter.Add(-time.Hour), Warn, "valid until", "-starttls postgres </dev/null | openssl x509"},
		{&tls.Config{RootCAs: trusted, ServerName: "other.test"}, server.Certificate().NotBefore, Fail, "not for other.test", "in the.dsn as its certificate does (example.com"},
		{&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}, server.Certificate().NotBefore, Fail, "not trusted", "-connect " + server.Listener.Addr().String() + " -starttls postgres -showcerts"},
		{&tls.Config{RootCAs: trusted, ServerName: "example.com", Time: func() time.Time { return server.Certificate().NotAfter.Add(time.Hour) }}, time.Time{}, Fail, "expired", "openssl x509"},
		{&tls.Config{RootCAs: trusted, ServerName: "example.com", NextProtos: []string{"nonsense"}}, time.Time{}, Fail, "handshake", "openssl s_client -connect"},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.config.MinVersion = tls.VersionTLS12
		f := Handshake(t.Context(), conn, c.config, Peer{Setting: "the.dsn", Authority: "ca", StartTLS: "postgres"}, c.now)
		if f.Verdict != c.verdict || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Fix, c.fix) {
			t.Errorf("%+v: want %s, %q, %q", f, c.verdict, c.text, c.fix)
		}
	}
}

// A refused client certificate is told as such: by TLS 1.2 in the handshake, by TLS 1.3 after it.
func TestHandshakeNamesTheClientsCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	server.StartTLS()
	t.Cleanup(server.Close)
	foreign := server.TLS.Certificates[0]
	var err error
	if foreign.Leaf, err = x509.ParseCertificate(foreign.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	ask := func(conn net.Conn) error {
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			certificates []tls.Certificate
			text, fix    string
		}{
			{nil, "demands a client certificate, and there is none", "cert and key; of whose it wants one: openssl s_client -connect"},
			{[]tls.Certificate{foreign}, `does not trust the client certificate "O=Acme Co"`, "openssl x509 -noout -subject -issuer -dates -in /a/file"},
		} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			config := &tls.Config{RootCAs: trusted, ServerName: "example.com", MinVersion: version, MaxVersion: version, Certificates: c.certificates}
			f := Handshake(t.Context(), conn, config, Peer{Client: "cert and key", File: "/a/file", Ask: ask}, server.Certificate().NotBefore)
			if f.Verdict != Fail || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Fix, c.fix) {
				t.Errorf("%s: %+v: want %q, %q", tls.VersionName(version), f, c.text, c.fix)
			}
		}
	}
}

// Clients go on to the next of several servers: the doctor fails only where there is no next.
func TestOneServerOfSeveralIsEnough(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	good, refuses, unknown := l.Addr().String(), "127.0.0.1:1", "nohost.invalid:1"
	for _, c := range []struct {
		addresses []string
		dial      Verdict
		resolve   Verdict
	}{
		{[]string{good}, OK, OK},
		{[]string{good, refuses}, Warn, OK},
		{[]string{refuses, good}, Warn, OK},
		{[]string{refuses, refuses}, Fail, OK},
		{[]string{unknown, good}, Warn, Warn},
		{[]string{unknown, unknown}, Fail, Fail},
		{[]string{good, "noport"}, Warn, Fail}, // that is no server that is away
	} {
		if f, _ := Dial(t.Context(), c.addresses, "setting"); f.Verdict != c.dial || (f.Fix != "") != (f.Verdict != OK) {
			t.Errorf("dial %q: %+v, want %s", c.addresses, f, c.dial)
		}
		if f, _ := Resolve(t.Context(), c.addresses, "setting"); f.Verdict != c.resolve || (f.Fix != "") != (f.Verdict != OK) {
			t.Errorf("resolve %q: %+v, want %s", c.addresses, f, c.resolve)
		}
	}
}

func TestFixIsACommandThatWorks(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"h:1": "nc -vz h 1", "[::1]:5432": "nc -vz ::1 5432", "10.0.0.1:9092": "nc -vz 10.0.0.1 9092"} {
		if got := Probe(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	for _, word := range []string{"campaigns.dlq", "", "a b", "CN=tiffin,O=A & B", "it's", "$HOME", "a\nb", "Ünï"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+Word(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q: a shell reads %s as %q, %v", word, Word(word), out, err)
		}
	}
}
