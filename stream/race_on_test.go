//go:build race

package stream

// raceDetector makes a crash test cost twenty times as much: it then takes a sample of the points.
const raceDetector = true
