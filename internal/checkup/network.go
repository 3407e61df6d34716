package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Resolve judges whether the names of addresses (HOST:PORT) are known, and returns those that are: one
// will do.
func Resolve(ctx context.Context, addresses []string, setting string) (f Finding, known []string) {
	var found []Finding
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return Bad(fmt.Sprintf("%s is no HOST:PORT", address), "correct "+setting), nil
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			found = append(found, Bad(fmt.Sprintf("%s: %v", host, err), "correct "+setting+", or make the name known: getent hosts "+host))
			continue
		}
		found, known = append(found, Good(host+" is "+strings.Join(ips, ", "))), append(known, address)
	}
	return AnyOf(found), known
}

// Dial judges whether something listens at the addresses, and returns those where it does: one will do,
// clients go on to the next.
func Dial(ctx context.Context, addresses []string, setting string) (f Finding, answer []string) {
	var found []Finding
	for _, address := range addresses {
		conn, err := dial(ctx, address)
		if err != nil {
			found = append(found, Bad(err.Error(), fmt.Sprintf("start the server, open the firewall, or correct %s: %s", setting, probe(address))))
			continue
		}
		_ = conn.Close() // only whether it came about counts
		found, answer = append(found, Good(address+" accepts connections")), append(answer, address)
	}
	return AnyOf(found), answer
}

// probe is a command that tries an address.
func probe(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "nc -vz " + address
	}
	return "nc -vz " + host + " " + port
}

// AnyOf is the answer for several servers of which one suffices: those that do not serve are worth a
// warning, and a fault if there is no other.
func AnyOf(found []Finding) Finding {
	all := AllOf(found)
	works := func(f Finding) bool { return f.Verdict != Fail }
	if all.Verdict == Fail && slices.ContainsFunc(found, works) {
		all.Verdict = Warn
	}
	return all
}

// AllOf is the answer for several servers all of which are needed: the worst, with all texts and fixes.
func AllOf(found []Finding) Finding {
	verdict := OK
	var texts, fixes []string
	for _, f := range found {
		if f.Verdict == Fail || f.Verdict == Warn && verdict == OK {
			verdict = f.Verdict
		}
		if !slices.Contains(texts, f.Text) {
			texts = append(texts, f.Text)
		}
		if f.Fix != "" && !slices.Contains(fixes, f.Fix) {
			fixes = append(fixes, f.Fix)
		}
	}
	return Finding{verdict, strings.Join(texts, "; "), strings.Join(fixes, "; ")}
}

// dialLimit leaves time for the second of two addresses that do not answer.
const dialLimit = 4 * time.Second

func dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", address)
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
