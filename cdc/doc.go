// Package cdc turns the source database's write-ahead log into transactions of the index. It
// is the only package that speaks the replication protocol.
//
// Its one rule: a position is reported to the server only after everything below it was
// applied and is visible to the snapshots that a later load would take. So a restart, a
// reconnection or a rebuild is sent again whatever the index might miss.
//
// Who owns what: the goroutine in Reader.Run alone reads and writes the replication
// connection and calls the index's writer methods. A second goroutine, the warden, lives as
// long as a session and asks SQL questions, so that no query delays a keepalive's answer.
// Wait and ReadRestaurant run on their callers' goroutines, on connections of their own.
//
// A row whose restaurant or client is NULL is no subscription: it is kept apart under a key
// that no campaign can carry (one NUL byte), so that it costs memory and answers nothing.
package cdc
