package main

import "example.com/tiffin/cmd/bench/internal/harness"

// scenarios are in the order in which they are run.
func scenarios() []harness.Scenario {
	return []harness.Scenario{
		throughput(),
		latency(),
		eos(),
		page(),
		tableSize(),
		scale(),
		large(),
		freshness(),
		fenceAlone(),
		harmless(),
		index(),
		bigtxn(),
		snapshot(),
		apply(),
		cdcApply(),
		recovery(),
		soakScenario(),
	}
}
