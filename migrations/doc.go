// Package migrations creates and checks what tiffin keeps in the feedback database: the
// schema tiffin with the ledger and the manifest, and the feedback table if it is missing.
//
// Its one rule: a database that is already current is only read, so that a daemon without
// any right to create starts there. Nothing here starts a goroutine; each function uses the
// connection it is given and nothing else.
package migrations
