// Package acceptance holds no code but tests: the promises, kept by the built program as a
// process of its own, on a real Apache Kafka and a real PostgreSQL, against an expectation
// that owes nothing to the code under test.
package acceptance
