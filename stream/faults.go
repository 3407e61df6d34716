package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
)

// The sinks, as metrics and reasons name them.
const (
	sinkPostgres = "postgres"
	sinkKafka    = "kafka"
)

// sinkError says which sink ended a session.
type sinkError struct {
	sink string
	err  error
}

func (e *sinkError) Error() string { return e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

func sinkFault(sink string, err error) error {
	if err == nil {
		return nil
	}
	return &sinkError{sink: sink, err: err}
}

// lostError says that partitions may be somebody else's already, and with them what was in hand.
type lostError struct {
	group      string
	partitions []int32
}

func (e *lostError) Error() string {
	return fmt.Sprintf("membership of group %s was lost, and with it partitions %v: the coordinator is gone, or did not hear from this process in time", e.group, e.partitions)
}

// LedgerError says that the ledger and the group's offset contradict each other in a way that
// only an operator can judge. Run returns it at once.
type LedgerError struct {
	Partition int32
	// Text says what was found and what can be done.
	Text string
}

func (e *LedgerError) Error() string { return fmt.Sprintf("partition %d: %s", e.Partition, e.Text) }

// TopicError says that a topic is not there.
type TopicError struct {
	Topic string
	Err   error
}

func (e *TopicError) Error() string {
	return fmt.Sprintf("topic %s: %v; create it (kafka-topics.sh --create --topic %s --partitions N) or let the broker create topics (auto.create.topics.enable)",
		e.Topic, e.Err, e.Topic)
}

func (e *TopicError) Unwrap() error { return e.Err }

// SettingError is a setting that proves wrong only when it is used: a file that is not there
// or not what it should be.
type SettingError struct{ Err error }

func (e *SettingError) Error() string { return e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// IsPermanent reports whether waiting cannot mend err: a refused password, an untrusted
// certificate, a missing right, table or column, or a ledger that an operator must judge.
// At the start such an error ends the process; later it is retried, because somebody may be
// changing exactly that.
func IsPermanent(err error) bool {
	var ledger *LedgerError
	var setting *SettingError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &ledger), errors.As(err, &setting):
		return true
	case errors.As(err, &pg):
		return permanentState(pg.Code)
	}
	return untrusted(err) || refused(err)
}

// permanentState judges an SQLSTATE (PostgreSQL documentation, appendix A).
func permanentState(code string) bool {
	switch code {
	case "28000", "28P01", // authorization, password
		"3D000", "3F000", // no such database, schema
		"42501",                   // no right
		"42P01", "42703", "42804", // no such table, column; wrong type
		"42883", "0A000": // no such function, not supported: too old a server
		return true
	}
	return false
}

func untrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var alert *net.OpError // how crypto/tls reports that the other side refused us
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) ||
		errors.As(err, &verification) || errors.As(err, &alert) && alert.Op == "remote error"
}

func refused(err error) bool {
	return isAny(err,
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.InvalidTransactionTimeout)
}

func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) })
}

// takenOver reports whether err says that others have, or are given, what this process had: its group,
// its producers or its claims.
func takenOver(err error) bool {
	_, lost := errors.AsType[*lostError](err)
	_, fenced := errors.AsType[*FencedError](err)
	return lost || fenced || isAny(err, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.FencedInstanceID,
		kerr.ProducerFenced, kerr.InvalidProducerEpoch)
}

// stopped reports whether ctx ended because it was asked to, not because of a fault.
func stopped(ctx context.Context) bool { return ctx.Err() != nil }
