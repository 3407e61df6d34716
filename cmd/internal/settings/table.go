package settings

import (
	"slices"
	"strings"
)

// Key describes one setting.
type Key struct {
	Name     string // as in the file, sections joined by dots
	Default  string // as a user would write it; empty: none
	Fallback string // what an unset key without Default means, for the reader
	Required bool
	Doc      string // one line

	secret bool                // masked wherever it is shown
	into   func(*Settings) any // where it goes; its type says how it is read
	oneOf  []string            // the only values allowed
	off    bool                // the word off is allowed and means none
	check  func(string) error  // of a text, after oneOf
}

// Env returns the variable that sets the key.
func (k Key) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))
}

// EnvPrefix begins the name of every variable that is a setting.
const EnvPrefix = "TIFFIN_"

// Keys returns every setting, in the order of the documentation.
func Keys() []Key {
	return slices.Concat(databaseKeys(), kafkaKeys(), kafkaSecurityKeys(), otherKeys())
}

func databaseKeys() []Key {
	return []Key{
		{
			Name: "source.dsn", Required: true, into: func(s *Settings) any { return &s.Source.DSN },
			Doc: "database of the subscribers: URL or key=value; PG* variables fill what it lacks, and may replace it (PGHOST or PGSERVICE)",
		},
		{
			Name: "source.table", Default: "public.subscribers_restaurants", into: func(s *Settings) any { return &s.Source.Table },
			Doc: "the subscribers; only read",
		},
		{
			Name: "setup.dsn", Fallback: "source.dsn", into: func(s *Settings) any { return &s.Setup.DSN },
			Doc: "how slotsetup connects: as the owner of the table, or as a DBA",
		},
		{
			Name: "setup.role", Fallback: "the user of source.dsn", into: func(s *Settings) any { return &s.Setup.Role }, check: identifier,
			Doc: "whom slotsetup grants the daemon's rights to",
		},
		{
			Name: "source.publication", Default: "tiffin", into: func(s *Settings) any { return &s.Source.Publication }, check: identifier,
			Doc: "publication of the table",
		},
		{
			Name: "source.slot", Default: "tiffin", into: func(s *Settings) any { return &s.Source.Slot }, check: slotName,
			Doc: "replication slot; each process of a group needs one of its own",
		},
		{
			Name: "source.setup", Default: "auto", oneOf: []string{"auto", "never"}, into: func(s *Settings) any { return &s.Source.Setup },
			Doc: "auto: create publication or slot if missing and permitted; never: fail and name the slotsetup command",
		},
		{
			Name: "source.fence", Default: "flush", oneOf: []string{"flush", "emit", "off"}, off: true, into: func(s *Settings) any { return &s.Source.Fence },
			Doc: "how fresh the index must be before a join: flush covers every synchronous commit, emit those with synchronous_commit=off too, off none",
		},
		{
			Name: "source.max_staleness", Default: "0s", into: func(s *Settings) any { return &s.Source.MaxStaleness },
			Doc: "0s: wait for the source as long as it takes; else join against an index at most this old, and mark it in the manifest",
		},
		{
			Name: "source.max_retained_wal", Default: "8GiB", into: func(s *Settings) any { return &s.Source.MaxRetainedWAL },
			Doc: "the slot is given up, and the index rebuilt, before it holds back more WAL than this on the source",
		},
		{
			Name: "source.failover", Default: "false", into: func(s *Settings) any { return &s.Source.Failover },
			Doc: "make the slot one that standbys synchronise, so that it outlives a failover; PostgreSQL 17 or newer",
		},
		{
			Name: "feedback.dsn", Required: true, into: func(s *Settings) any { return &s.Feedback.DSN },
			Doc: "database of the feedback table: as source.dsn",
		},
		{
			Name: "feedback.table", Default: "public.subscribers_feedback", into: func(s *Settings) any { return &s.Feedback.Table },
			Doc: "takes one row per delivery",
		},
		{
			Name: "feedback.migrate", Default: "true", into: func(s *Settings) any { return &s.Feedback.Migrate },
			Doc: "create or upgrade the schema tiffin and the feedback table at start",
		},
	}
}

func kafkaKeys() []Key {
	return []Key{
		{
			Name: "kafka.brokers", Required: true, into: func(s *Settings) any { return &s.Kafka.Brokers },
			Doc: "HOST:PORT, a list; separated by commas in the environment",
		},
		{
			Name: "kafka.group", Default: "tiffin", into: func(s *Settings) any { return &s.Kafka.Group }, check: plainText,
			Doc: "consumer group; also the identity of the ledger and the prefix of transactional ids",
		},
		{
			Name: "kafka.instance_id", Fallback: "source.slot", off: true, into: func(s *Settings) any { return &s.Kafka.InstanceID }, check: topicName,
			Doc: "static membership, so that a process that was killed takes its partitions back at once; off for dynamic",
		},
		{
			Name: "kafka.input", Default: "campaigns", into: func(s *Settings) any { return &s.Kafka.Input }, check: topicName,
			Doc: "topic of the campaign messages",
		},
		{
			Name: "kafka.output", Default: "deliveries", into: func(s *Settings) any { return &s.Kafka.Output }, check: topicName,
			Doc: "topic of the deliveries",
		},
		{
			Name: "kafka.dead_letter", Default: "campaigns.dlq", into: func(s *Settings) any { return &s.Kafka.DeadLetter }, check: topicName,
			Doc: "topic of the messages that can never be delivered",
		},
		{
			Name: "kafka.start", Default: "latest", oneOf: []string{"latest", "earliest"}, into: func(s *Settings) any { return &s.Kafka.Start },
			Doc: "where a group without offsets begins: latest or earliest",
		},
		{
			Name: "kafka.session_timeout", Default: "45s", into: func(s *Settings) any { return &s.Kafka.SessionTimeout },
			Doc: "how long the group waits for a silent process before others take its partitions; the brokers bound it (group.min.session.timeout.ms, group.max…)",
		},
	}
}

// kafkaSecurityKeys say whom the brokers are to be, and as whom they are spoken to.
func kafkaSecurityKeys() []Key {
	return []Key{
		{
			Name: "kafka.tls.enabled", Default: "false", into: func(s *Settings) any { return &s.Kafka.TLS.Enabled },
			Doc: "TLS to the brokers, verified",
		},
		{
			Name: "kafka.tls.ca_file", Fallback: "the system's roots", into: func(s *Settings) any { return &s.Kafka.TLS.CAFile }, check: certificates,
			Doc: "PEM file of the authorities to trust",
		},
		{
			Name: "kafka.tls.cert_file", Fallback: "none", into: func(s *Settings) any { return &s.Kafka.TLS.CertFile }, check: readable,
			Doc: "PEM file of the client's certificate, for mutual TLS",
		},
		{
			Name: "kafka.tls.key_file", Fallback: "none", into: func(s *Settings) any { return &s.Kafka.TLS.KeyFile }, check: readable,
			Doc: "PEM file of its key",
		},
		{
			Name: "kafka.sasl.mechanism", Fallback: "none", oneOf: []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"}, off: true,
			into: func(s *Settings) any { return &s.Kafka.SASL.Mechanism },
			Doc:  "SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN",
		},
		{
			Name: "kafka.sasl.username", Fallback: "none", into: func(s *Settings) any { return &s.Kafka.SASL.Username },
			Doc: "user to log in as",
		},
		{
			Name: "kafka.sasl.password", Fallback: "none", secret: true, into: func(s *Settings) any { return &s.Kafka.SASL.Password },
			Doc: "best from the environment",
		},
		{
			Name: passwordFileKey, Fallback: "none", into: func(s *Settings) any { return &passwordFile{&s.Kafka.SASL} },
			Doc: "file that holds the password; one line break at its end is not part of it",
		},
	}
}

func otherKeys() []Key {
	return []Key{
		{
			Name: "delivery.mode", Default: "exactly_once", oneOf: []string{"exactly_once", "at_least_once"}, into: func(s *Settings) any { return &s.Delivery.Mode },
			Doc: "exactly_once, or at_least_once for brokers without transactions",
		},
		{
			Name: "delivery.max_transaction_records", Default: "50000", into: func(s *Settings) any { return &s.Delivery.MaxTransactionRecords },
			Doc: "records of one Kafka transaction; a larger campaign takes several",
		},
		{
			Name: "index.budget", Default: "256MiB", into: func(s *Settings) any { return &s.Index.Budget },
			Doc: "of postings kept in memory",
		},
		{
			Name: "index.spill_dir", Fallback: "the system's for temporary files", into: func(s *Settings) any { return &s.Index.SpillDir },
			Doc: "directory for what a large transaction of the source does not keep in memory, 16 bytes a change",
		},
		{
			Name: "http.listen", Default: "127.0.0.1:9464", off: true, into: func(s *Settings) any { return &s.HTTP.Listen }, check: listenAddress,
			Doc: "HOST:PORT of probes and metrics; off for none",
		},
		{
			Name: "tracing.endpoint", Default: "off", off: true, into: func(s *Settings) any { return &s.Tracing.Endpoint }, check: collectorURL,
			Doc: "URL of an OpenTelemetry collector that takes OTLP over HTTP (http://HOST:4318): a span for each campaign message and its steps, and its context in the output records' headers; off for neither",
		},
		{
			Name: "tracing.sample_ratio", Default: "1", into: func(s *Settings) any { return &s.Tracing.SampleRatio },
			Doc: "of the campaign messages that bring no trace context, how many are traced, from 0 to 1; the others follow their publisher's decision",
		},
		{
			Name: "log.level", Default: "info", into: func(s *Settings) any { return &s.Log.Level },
			Doc: "debug, info, warn or error",
		},
		{
			Name: "log.format", Default: "text", oneOf: []string{"text", "json"}, into: func(s *Settings) any { return &s.Log.Format },
			Doc: "text or json; to stderr",
		},
	}
}
