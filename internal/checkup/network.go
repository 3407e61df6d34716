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

// addressLimit leaves time for the second of two addresses that do not answer.
const addressLimit = 4 * time.Second

func dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: addressLimit}).DialContext(ctx, "tcp", address)
}

// TimedOut reports whether err is that no answer came.
func TimedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// Silent is for addresses that accept connections and answer nothing. The kernel accepts also for a
// process that hangs, and a proxy for a server that is away.
func Silent(addresses []string, setting string, err error) Finding {
	var looks []string
	for _, address := range addresses {
		host, port, _ := net.SplitHostPort(address) // somebody has dialled it
		looks = append(looks, fmt.Sprintf("ss -ltnp 'sport = :%s' # on %s", port, host))
	}
	if len(looks) == 0 {
		looks = []string{"ss -lxp"}
	}
	return Bad(strings.Join(addresses, ", ")+" accepts connections and does not answer: "+err.Error(),
		"see what listens there, and wake it; a proxy may have no server behind it, and "+setting+" may name the port of something else: "+strings.Join(looks, "; "))
}

// expiryWarning is how long before a certificate's end an operator should hear of it.
const expiryWarning = 14 * 24 * time.Hour

// Peer is a server of which a certificate is expected.
type Peer struct {
	Setting   string // the setting that names it
	Authority string // the setting that names the trusted certificates
	StartTLS  string // the protocol by which it is asked for TLS, as openssl knows it; empty: none
	// Client are the settings that name this side's certificate and its key, File is the former's value.
	Client, File string
	// Ask puts a question that needs no login, and waits for the answer; nil: there is none. By TLS 1.3
	// (RFC 8446, 4.4.2) a server refuses a client's certificate after the client's last word.
	Ask func(net.Conn) error
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
	ctx, cancel := context.WithTimeout(ctx, addressLimit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // a connection without one is bounded by ctx at the handshake
	address := conn.RemoteAddr().String()
	config, wanted := watchClientCertificate(config)
	secured := tls.Client(conn, config)
	err := secured.HandshakeContext(ctx)
	if err == nil && peer.Ask != nil {
		if refusal := peer.Ask(secured); alerted(refusal) { // whatever else it says, the login will say better
			err = refusal
		}
	}
	if f, judged := certificateFault(err, peer, address); judged {
		return f
	}
	switch {
	case alerted(err) && *wanted:
		return clientRefused(err, config, peer, address)
	case TimedOut(err):
		return Silent([]string{address}, peer.Setting, fmt.Errorf("TLS handshake: %w", err))
	case err != nil:
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

// watchClientCertificate is a configuration that notes whether the server wants a client certificate.
// Which is given is chosen as crypto/tls does.
func watchClientCertificate(config *tls.Config) (watched *tls.Config, wanted *bool) {
	watched, wanted = config.Clone(), new(bool)
	watched.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*wanted = true
		for i := range config.Certificates {
			if request.SupportsCertificate(&config.Certificates[i]) == nil {
				return &config.Certificates[i], nil
			}
		}
		return &tls.Certificate{}, nil
	}
	return watched, wanted
}

// alerted reports whether the other side said no, as crypto/tls tells it.
func alerted(err error) bool {
	refusal, ok := errors.AsType[*net.OpError](err)
	return ok && refusal.Op == "remote error"
}

// clientRefused names the client's certificate, and why the server does not take it.
func clientRefused(err error, config *tls.Config, peer Peer, address string) Finding {
	if len(config.Certificates) == 0 || config.Certificates[0].Leaf == nil {
		return Bad(address+" demands a client certificate, and there is none: "+err.Error(),
			"name one and its key in "+peer.Client+"; of whose it wants one: "+peer.client(address)+" </dev/null | grep -A 3 'client certificate CA'")
	}
	leaf := config.Certificates[0].Leaf
	return Bad(fmt.Sprintf("%s does not trust the client certificate %q, signed by %q: %v", address, leaf.Subject.String(), leaf.Issuer.String(), err),
		"have one made by an authority that the server trusts, or have it trust this one; "+peer.Client+" hold: openssl x509 -noout -subject -issuer -dates -in "+Word(peer.File))
}

// certificateFault names the certificate and what does not fit.
func certificateFault(err error, peer Peer, address string) (Finding, bool) {
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return Bad(fmt.Sprintf("the certificate is for %s, not for %s", subject(host.Certificate), host.Host),
			fmt.Sprintf("name the server in %s as its certificate does (%s), or have one made for %s; it serves: %s </dev/null | openssl x509 -noout -text",
				peer.Setting, subject(host.Certificate), host.Host, peer.client(address))), true
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
