package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Resolve judges whether the names of addresses (HOST:PORT) are known.
func Resolve(ctx context.Context, addresses []string, setting string) Finding {
	var known []string
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return Bad(fmt.Sprintf("%s is no HOST:PORT", address), "correct "+setting)
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return Bad(fmt.Sprintf("%s: %v", host, err), "correct "+setting+", or make the name known: getent hosts "+host)
		}
		known = append(known, host+" is "+strings.Join(ips, ", "))
	}
	return Good(strings.Join(known, "; "))
}

// Dial judges whether something listens at each address.
func Dial(ctx context.Context, addresses []string, setting string) Finding {
	for _, address := range addresses {
		conn, err := dial(ctx, address)
		if err != nil {
			return Bad(err.Error(), fmt.Sprintf("start the server, open the firewall, or correct %s: nc -vz %s", setting, strings.Replace(address, ":", " ", 1)))
		}
		_ = conn.Close() // only whether it came about counts
	}
	return Good(strings.Join(addresses, ", ") + " accept connections")
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
}

// expiryWarning is how long before a certificate's end an operator should hear of it.
const expiryWarning = 14 * 24 * time.Hour

// Handshake judges a TLS handshake over conn, which it closes. authority is the setting that names the
// trusted certificates.
func Handshake(ctx context.Context, conn net.Conn, config *tls.Config, authority string, now time.Time) Finding {
	defer func() { _ = conn.Close() }() // only the handshake counts
	secured := tls.Client(conn, config)
	err := secured.HandshakeContext(ctx)
	if f, judged := certificateFault(err, authority); judged {
		return f
	}
	if err != nil {
		return Bad("TLS handshake with "+conn.RemoteAddr().String()+": "+err.Error(),
			"does the server speak TLS at this port? openssl s_client -connect "+conn.RemoteAddr().String())
	}
	state := secured.ConnectionState()
	leaf := state.PeerCertificates[0]
	text := fmt.Sprintf("%s, certificate of %s, valid until %s", tls.VersionName(state.Version), subject(leaf), leaf.NotAfter.UTC().Format(time.DateOnly))
	if leaf.NotAfter.Sub(now) < expiryWarning {
		return Odd(text, "renew the server's certificate")
	}
	return Good(text)
}

// certificateFault names the certificate and what does not fit.
func certificateFault(err error, authority string) (Finding, bool) {
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return Bad(fmt.Sprintf("the certificate is for %s, not for %s", subject(host.Certificate), host.Host),
			"connect by a name that the certificate bears, or have one made for "+host.Host), true
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		text := "the certificate is signed by an authority that is not trusted"
		if unknown.Cert != nil {
			text = fmt.Sprintf("the certificate of %s is signed by %q, which is not trusted", subject(unknown.Cert), unknown.Cert.Issuer.String())
		}
		return Bad(text, "give the authority's certificate as "+authority), true
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return Bad(fmt.Sprintf("the certificate of %s: %v", subject(invalid.Cert), invalid), "renew the server's certificate"), true
	}
	return Finding{}, false
}

// subject is how people know a certificate.
func subject(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return fmt.Sprintf("%q", c.Subject.String())
	}
	return strings.Join(names, ", ")
}
