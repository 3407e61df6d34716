// Package stream takes campaigns from Kafka, joins each with its restaurant's subscribers and
// delivers to both sinks: rows of the feedback table and records of the output topic, exactly
// once. It is the only package that speaks Kafka.
//
// Its one rule is the order of effects. The plan of a campaign message is made once; Postgres
// commits it, with the ledger's new position, under the epoch of the partition's owner; only
// then the Kafka transaction with the records and the group's offset ends. Whatever dies in
// between, the ledger leads the group's offset, and the next owner rebuilds the missing records
// from the rows. A fault therefore ends the session, and a session begins by recovering: there
// is one path for a crash, a restart and an error.
//
// Goroutines: Engine.Run owns them all. In a session one polls, one plans and writes to
// Postgres, one per transaction in flight (at most as many as there are producers) publishes;
// franz-go's group goroutine calls back to claim and to give up partitions.
package stream
