package stream

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/pooling"
)

// withRemedy adds to the error that ended a session what an operator can do, where the cause
// tells; an error that says it already stays as it is.
func withRemedy(err error) error {
	fix := ""
	if sink, ok := errors.AsType[*sinkError](err); ok {
		switch sink.sink {
		case sinkPostgres:
			fix = FeedbackRemedy(err)
		case sinkKafka:
			fix = kafkaRemedy(err)
		}
	}
	if fix == "" {
		return err
	}
	return fmt.Errorf("%w; fix: %s", err, fix)
}

// FeedbackRemedy says what an operator can do about an error of the feedback database; empty
// where the cause does not tell.
func FeedbackRemedy(err error) string {
	if twice, ok := errors.AsType[*twiceError](err); ok {
		return twice.remedy()
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		if attempt, ok := errors.AsType[*pgconn.ConnectError](err); ok {
			return checkup.Admission(pg, attempt.Config, "feedback.dsn")
		}
		switch pg.Code {
		case "42501":
			if strings.Contains(pg.Message, "row-level security") { // where the server speaks English
				return "let the daemon's role see and write all rows, as a superuser: ALTER ROLE … BYPASSRLS; or make it the table's owner"
			}
			return "have a DBA run: tiffin migrate --print --role ROLE | psql -X -v ON_ERROR_STOP=1 DATABASE"
		case "55P03":
			return "end the transaction that holds the lock: SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation IS NOT NULL"
		case "57014":
			return "raise statement_timeout, as the daemon's role: ALTER ROLE CURRENT_USER SET statement_timeout = 0; or set it in feedback.dsn"
		case "25P04":
			return "raise transaction_timeout above what the largest campaign takes, as the daemon's role: ALTER ROLE CURRENT_USER SET transaction_timeout = 0"
		case "42P05", "26000": // a prepared statement is there already, or is not there
			return pooling.Fix + ": statements are prepared"
		case "53100":
			return "make room on the server's disk"
		case "25006":
			return "name the primary in feedback.dsn, or all servers and target_session_attrs=read-write; on a primary: default_transaction_read_only is on, for the role, the database or the server"
		case "53300":
			return "raise max_connections, or the connection limit of the role or database"
		}
		return ""
	}
	if fix := filesRemedy(err); fix != "" {
		return fix
	}
	switch {
	case untrusted(err):
		return "give the authority's certificate as sslrootcert in feedback.dsn, and as host the name that the certificate is for"
	case undialled(err):
		return "start the server, or correct host and port in feedback.dsn" + tried(err)
	}
	return ""
}

// kafkaRemedy is the same for the brokers.
func kafkaRemedy(err error) string {
	for _, known := range []struct {
		cause error
		fix   string
	}{
		{kerr.SaslAuthenticationFailed, "check kafka.sasl.username, kafka.sasl.password and kafka.sasl.mechanism"},
		{kerr.UnsupportedSaslMechanism, "name a mechanism in kafka.sasl.mechanism that the brokers offer"},
		{kerr.IllegalSaslState, "name the mechanism that the brokers' listener wants in kafka.sasl.mechanism"},
		{kerr.TopicAuthorizationFailed, "grant Read and Describe on kafka.input, Write and Describe on kafka.output and kafka.dead_letter; a topic that is missing looks the same without these" + commandsShown},
		{kerr.GroupAuthorizationFailed, "grant Read on the group of kafka.group" + commandsShown},
		{kerr.InvalidTransactionTimeout, timeoutFix()},
		{kerr.ProducerFenced, fencedFix},
		{kerr.InvalidProducerEpoch, fencedFix},
		{kerr.InvalidTxnState, fencedFix}, // to the end of a transaction that the broker has aborted
		{kerr.MessageTooLarge, "none needed: the topic's limit is asked for anew, and a campaign that is too large for it becomes a dead letter; to have it delivered raise max.message.bytes" + commandsShown},
		{kerr.InvalidRecord, "have the topic keep its records: kafka-configs.sh --alter --topic TOPIC --add-config cleanup.policy=delete; a compacted one takes no dead letter without a key, and forgets those with one"},
		{kerr.OffsetOutOfRange, "none for what is gone, which the next lines name: raise retention.ms or retention.bytes of the input topic above the longest stay that campaigns may have in it"},
		{kerr.InconsistentGroupProtocol, "another program with another way to share partitions is in the group: name one of tiffin's own in kafka.group"},
		{kerr.TransactionalIDAuthorizationFailed, "grant Write on the transactional ids that begin with kafka.group (resource pattern type prefixed)" + commandsShown},
	} {
		if errors.Is(err, known.cause) {
			return known.fix
		}
	}
	refusal, isRefusal := errors.AsType[*net.OpError](err)
	if fix := filesRemedy(err); fix != "" {
		return fix
	}
	switch {
	case isRefusal && refusal.Op == "remote error":
		return "the broker does not accept the client's certificate: check kafka.tls.cert_file and kafka.tls.key_file"
	case untrusted(err):
		return "give the authority's certificate as kafka.tls.ca_file, and in kafka.brokers the name that the certificate is for"
	case undialled(err):
		return "start the brokers, or correct kafka.brokers" + tried(err)
	}
	return ""
}

// commandsShown is for what takes the settings' names.
const commandsShown = ": tiffin doctor prints the command"

// timeoutFix is no command: the brokers read the setting at their start only.
func timeoutFix() string {
	return fmt.Sprintf("transaction.max.timeout.ms=%d or more in the brokers' server.properties, and restart them", transactionTimeout.Milliseconds())
}

// tried is the command that tries the address that was dialled.
func tried(err error) string {
	dial, ok := errors.AsType[*net.OpError](err)
	if !ok || dial.Addr == nil {
		return ""
	}
	return ": " + checkup.Probe(dial.Addr.String())
}

// fencedFix is for a producer whose epoch is over: after a time-out of its transaction, or
// because somebody else uses its id. Every session takes the ids anew.
const fencedFix = "none needed once; if it repeats, another process has the same kafka.group and source.slot"

// undialled reports whether no connection came about: refused, no route, unknown name.
func undialled(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial"
}

// filesRemedy is what to do where no more files may be opened, which connections are some of; empty where that is not it. verify
// opens more than any other command (newSpill).
func filesRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "let the process open more files (ulimit -n, LimitNOFILE in its unit): 1024 is enough"
	case errors.Is(err, syscall.ENFILE):
		return "the whole machine has no file left to open: find who holds them (lsof), or raise the limit: sysctl fs.file-max"
	}
	return ""
}
