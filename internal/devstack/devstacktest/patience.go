package devstacktest

import (
	"os"
	"time"
)

// Patience bounds what a test waits for; only a failing test waits that long. It is a minute, for a
// busy machine's sake, or what $TEST_PATIENCE says: who expects a failure has less of it.
func Patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TEST_PATIENCE")); err == nil && d > 0 {
		return d
	}
	return time.Minute
}
