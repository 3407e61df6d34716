// Package devstack starts throwaway servers: a real PostgreSQL, a real Apache Kafka and an
// in-process fake broker, for the demo, the tests and the benchmarks. Product code must not
// import it.
//
// Its one rule: nothing stays. Every server listens on 127.0.0.1 only, keeps all it writes below
// one directory that Close removes, and dies with the process that started it, even when that one
// is killed (on Linux; elsewhere a killed parent leaves them).
//
// Each server process is owned by one goroutine, which forks it and waits for its end; all methods
// of a server may be called from several goroutines at once.
package devstack
