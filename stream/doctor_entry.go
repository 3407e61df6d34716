package stream

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"example.com/tiffin/internal/checkup"
)

// tls judges the certificates of the addresses that answer; which of them a client comes to is chance.
func (v *visit) tls(ctx context.Context, addresses []string, setting string) (found []checkup.Finding) {
	for _, address := range addresses {
		host, _, _ := net.SplitHostPort(address) // dns has judged it
		if !v.k.TLS.Enabled {
			found = append(found, v.inTheClear(ctx, address, host))
			continue
		}
		config, err := v.k.TLS.config()
		if err != nil {
			return append(found, checkup.Bad(err.Error(), "correct kafka.tls.ca_file, kafka.tls.cert_file and kafka.tls.key_file"))
		}
		config.ServerName = host
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			found = append(found, checkup.Bad(err.Error(), "try again: "+checkup.Probe(address)))
			continue
		}
		peer := checkup.Peer{
			Setting: setting, Authority: "kafka.tls.ca_file",
			Client: "kafka.tls.cert_file and kafka.tls.key_file", File: v.k.TLS.CertFile, Ask: askVersions,
		}
		f := checkup.Handshake(ctx, conn, config, peer, v.sheet.Now())
		if f.Verdict == checkup.Fail {
			f = v.mixup(ctx, address, f)
		}
		found = append(found, f)
	}
	return found
}

// mixup is what is told of a broker whose port speaks TLS where this side does not, or the other way
// round; otherwise what was found so far.
func (v *visit) mixup(ctx context.Context, address string, so checkup.Finding) checkup.Finding {
	ctx, cancel := context.WithTimeout(ctx, mixupTimeout)
	defer cancel()
	if f, found := v.k.aboutTLS(ctx, address); found {
		return f
	}
	return so
}

// inTheClear judges a broker without TLS. One that does not answer is the login's to tell.
func (v *visit) inTheClear(ctx context.Context, address, host string) checkup.Finding {
	asked, cancel := context.WithTimeout(ctx, mixupTimeout)
	defer cancel()
	plain := checkup.Odd("none: passwords and records cross the network in the clear", "set kafka.tls.enabled: true, with the brokers' TLS port in kafka.brokers")
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		plain = checkup.Good("none, to this machine")
	}
	if speaksPlain(asked, address) {
		return plain
	}
	return v.mixup(ctx, address, plain)
}

// refused names why the brokers do not let the daemon in.
func (v *visit) refused(ctx context.Context, err error) checkup.Finding {
	sasl, what := v.k.SASL, "log in"
	if sasl.Mechanism != "" {
		what += " by " + sasl.Mechanism
	}
	text := what + ": " + err.Error()
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed) && strings.HasPrefix(sasl.Mechanism, "SCRAM-"):
		return checkup.Bad(text, kafkaRemedy(err)+"; or make the user, or set its password: "+
			v.command("configs", "--alter", "--entity-type", "users", "--entity-name", sasl.Username, "--add-config", sasl.Mechanism+"=[password=…]"))
	case errors.Is(err, kerr.IllegalSaslState):
		return checkup.Bad(text+" The port has no logins", "set kafka.sasl.mechanism: off, or give a SASL port in kafka.brokers")
	case checkup.TimedOut(err):
		return checkup.Silent(v.answer, "kafka.brokers", err)
	}
	for _, address := range v.answer {
		if offered := v.k.mechanisms(ctx, address); sasl.Mechanism != "" && len(offered) > 0 && errors.Is(err, kerr.UnsupportedSaslMechanism) {
			return checkup.Bad(text, logins(offered))
		}
		if f, found := v.k.aboutLogin(ctx, address); sasl.Mechanism == "" && found {
			return f
		}
	}
	return v.fault(what, err)
}
