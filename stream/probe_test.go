package stream

import (
	"context"
	"testing"
	"testing/synctest"
)

// A sink that hangs is named with how long it was waited for, not with the wait's own end.
func TestSilentSinkIsNamedWithItsTimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		if got, want := ask(t.Context(), "kafka", hang), "kafka: no sign of life within 4s"; got != want {
			t.Errorf("the reason is %q, want %q", got, want)
		}
	})
}
