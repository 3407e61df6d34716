// Package cache is the subscriber index: which clients subscribe to which restaurant, exact
// from a bounded memory budget. It is a leaf that imports nothing of ours, and it holds the
// words that both sides, cdc and stream, share.
package cache
