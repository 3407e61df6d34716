//go:build !race

package stream

// raceDetector: without it the crash tests take every point.
const raceDetector = false
