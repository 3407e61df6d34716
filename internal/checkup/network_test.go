package checkup

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
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
	}{
		{&tls.Config{RootCAs: trusted, ServerName: "example.com"}, server.Certificate().NotBefore, OK, "example.com"},
		{&tls.Config{RootCAs: trusted, ServerName: "example.com"}, server.Certificate().NotAfter.Add(-time.Hour), Warn, "valid until"},
		{&tls.Config{RootCAs: trusted, ServerName: "other.test"}, server.Certificate().NotBefore, Fail, "not for other.test"},
		{&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}, server.Certificate().NotBefore, Fail, "not trusted"},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.config.MinVersion = tls.VersionTLS12
		if f := Handshake(t.Context(), conn, c.config, "ca", c.now); f.Verdict != c.verdict || !strings.Contains(f.Text, c.text) {
			t.Errorf("%+v: want %s, %q", f, c.verdict, c.text)
		}
	}
}
