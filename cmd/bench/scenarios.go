package main

import "example.com/tiffin/cmd/bench/internal/harness"

// scenarios are in the order in which they are run.
func scenarios() []harness.Scenario {
	return []harness.Scenario{
		throughput(),
		latency(),
		eos(),
		tableSize(),
		scale(),
		large(),
		freshness(),
		harmless(),
		printing("index", "bytes of heap a subscription, and exact answers from a tenth of the memory", index),
		printing("bigtxn", "5,000,000 rows changed in one transaction: memory above rest, atomic, no keepalive missed", bigtxn),
		printing("snapshot", "start to ready for 10,000,000 rows, beside psql's binary COPY to /dev/null", snapshot),
		apply(),
		printing("cdc", "applying a backlog of changes, against pg_recvlogical that throws the same away", cdcApply),
		recovery(),
		soakScenario(),
	}
}
