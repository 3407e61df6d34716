// Package cache is the subscriber index: which clients subscribe to which restaurant, exact
// from a bounded memory budget. It is a leaf that imports nothing of ours, and it holds the
// words that both sides, cdc and stream, share.
//
// Its one rule: what may be lost lies in ristretto (the postings), what may not lies in the
// directory (per restaurant a lock, the exact number of rows, a generation, an open fill
// ticket). A posting counts only while its generation is the directory's. So neither a
// dropped Set nor an eviction nor a stale entry can change an answer, only its price.
//
// One goroutine, the writer, calls BeginLoad, NewTxn and its methods, Apply, Settle. Any
// number of goroutines look up. The package starts no goroutine but those of ristretto,
// which Close ends, and those that Load.Finish waits for.
package cache
