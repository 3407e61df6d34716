// Package soak lets daemons deliver while everything dies: the daemons, the brokers, both
// databases, the connections between them. An oracle that knows every committed change of the
// source table and every published campaign then judges both sinks.
//
// Its one rule: what the oracle cannot know it asks for, it never guesses. A commit whose
// acknowledgement was lost is looked up, a campaign's recipients must be one state of the table
// between the last commit acknowledged before the campaign was published, or covered by its fence,
// and the first one begun after it was handled.
//
// Goroutines: run owns the writer, the publisher, the faults and the progress report, and waits for
// all of them; each life of a daemon is owned by one more.
package soak
