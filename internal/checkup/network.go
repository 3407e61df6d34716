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
			found = append(found, Bad(err.Error(), fmt.Sprintf("start the server, open the firewall, or correct %s: %s", setting, Probe(address))))
			continue
		}
		_ = conn.Close() // only whether it came about counts
		found, answer = append(found, Good(address+" accepts connections")), append(answer, address)
	}
	return AnyOf(found), answer
}

// Probe is a command that tries an address (HOST:PORT).
func Probe(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "nc -vz " + Word(address)
	}
	return "nc -vz " + Word(host) + " " + Word(port)
}

// Word quotes a word of a command for a POSIX shell, where it needs that.
func Word(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.,:/=@%+", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
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

// Peer is a server of which a certificate is expected.
type Peer struct {
	Setting   string // the setting that names it
	Authority string // the setting that names the trusted certificates
	StartTLS  string // the protocol by which it is asked for TLS, as openssl knows it; empty: none
}

// client is a command that shakes hands with the server as this program does.
func (p Peer) client(address string) string {
	command := "openssl s_client -connect " + address
	if p.StartTLS != "" {
		command += " -starttls " + p.StartTLS
	}
	return command
}

// renew names what is to be renewed, and a command that shows it.
func (p Peer) renew(address string) string {
	return "renew the server's certificate; it serves: " + p.client(address) + " </dev/null | openssl x509 -noout -subject -dates"
}

// Handshake judges a TLS handshake with the peer over conn, which it closes.
func Handshake(ctx context.Context, conn net.Conn, config *tls.Config, peer Peer, now time.Time) Finding {
	defer func() { _ = conn.Close() }() // only the handshake counts
	address := conn.RemoteAddr().String()
	secured := tls.Client(conn, config)
	err := secured.HandshakeContext(ctx)
	if f, judged := certificateFault(err, peer, address); judged {
		return f
	}
	if err != nil {
		return Bad("TLS handshake with "+address+": "+err.Error(), "does the server speak TLS at this port? "+peer.client(address))
	}
	state := secured.ConnectionState()
	leaf := state.PeerCertificates[0]
	text := fmt.Sprintf("%s, certificate of %s, valid until %s", tls.VersionName(state.Version), subject(leaf), leaf.NotAfter.UTC().Format(time.DateOnly))
	if leaf.NotAfter.Sub(now) < expiryWarning {
		return Odd(text, peer.renew(address))
	}
	return Good(text)
}

// certificateFault names the certificate and what does not fit.
func certificateFault(err error, peer Peer, address string) (Finding, bool) {
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return Bad(fmt.Sprintf("the certificate is for %s, not for %s", subject(host.Certificate), host.Host),
			fmt.Sprintf("name the server in %s as its certificate does (%s), or have one made for %s", peer.Setting, subject(host.Certificate), host.Host)), true
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		text := "the certificate is signed by an authority that is not trusted"
		if unknown.Cert != nil {
			text = fmt.Sprintf("the certificate of %s is signed by %q, which is not trusted", subject(unknown.Cert), unknown.Cert.Issuer.String())
		}
		return Bad(text, "give the authority's certificate as "+peer.Authority+"; the server sends: "+peer.client(address)+" -showcerts </dev/null"), true
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return Bad(fmt.Sprintf("the certificate of %s: %v", subject(invalid.Cert), invalid), peer.renew(address)), true
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
