package main

import (
	"context"
	"errors"
	"io"
)

// scenario is one thing to measure. Its run prints to options.out and returns an error that wraps
// errMissed or errDiffer if the figure is not what it should be.
type scenario struct {
	name    string
	summary string
	run     func(context.Context, options) error
}

// options are what the command line says.
type options struct {
	quick    bool
	tiffin   string // program to measure; empty: find or build it
	dir      string // for the servers' directories; empty: the system's for temporary files
	out      io.Writer
	progress io.Writer
}

// What ends a run that could be measured with exit status 1.
var (
	errMissed = errors.New("the goal was missed")
	errDiffer = errors.New("the sinks do not hold the expected deliveries: no figure counts")
)

func scenarios() []scenario {
	return []scenario{
		{"throughput", "a backlog of 10,000 campaigns of 100 recipients, exactly once, deliveries/s in both sinks", throughput},
		{"index", "bytes of heap a subscription, and exact answers from a tenth of the memory", index},
		{"bigtxn", "5,000,000 rows changed in one transaction: memory above rest, atomic, no keepalive missed", bigtxn},
		{"snapshot", "start to ready for 10,000,000 rows, beside psql's binary COPY to /dev/null", snapshot},
		{"freshness", "commit to visible in the index, and the fence, idle and beside pgbench, against the wire alone", freshness},
		{"cdc", "applying a backlog of changes, against pg_recvlogical that throws the same away", cdcApply},
	}
}
