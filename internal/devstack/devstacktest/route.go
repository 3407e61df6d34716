package devstacktest

import (
	"testing"

	"example.com/tiffin/internal/devstack"
)

// OpenRoute opens a route to a server from a free port. The test's end closes it.
func OpenRoute(tb testing.TB, to string) *devstack.Route {
	tb.Helper()
	return OpenRouteFrom(tb, "", to)
}

// OpenRouteFrom opens a route from an address that somebody was told already.
func OpenRouteFrom(tb testing.TB, from, to string) *devstack.Route {
	tb.Helper()
	r, err := devstack.OpenRoute(tb.Context(), from, to)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Errorf("clean up: %v", err)
		}
	})
	return r
}

// RouteDSN is the DSN of a database, led over a route.
func RouteDSN(tb testing.TB, r *devstack.Route, dsn string) string {
	tb.Helper()
	led, err := r.DSN(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	return led
}
