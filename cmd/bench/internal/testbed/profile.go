package testbed

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// Profile is a CPU profile of the daemon over so long (whole seconds), in pprof's format. It costs
// the daemon about one part in a hundred meanwhile.
func (t *Tiffin) Profile(ctx context.Context, over time.Duration) ([]byte, error) {
	var profile bytes.Buffer
	err := t.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(over.Seconds())), over+5*time.Second, &profile)
	return profile.Bytes(), err
}
