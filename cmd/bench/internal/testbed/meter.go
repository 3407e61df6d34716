package testbed

import (
	"maps"
	"sync"
	"time"
)

// Usage is what a process and its descendants take.
type Usage struct {
	CPU    time.Duration // so far
	Memory int64         // bytes, resident, now
}

// Meter watches processes: CPU time between its start and its stop, memory over time.
type Meter struct {
	pids   map[string]int
	begun  time.Time
	before map[string]Usage
	stop   chan struct{}
	done   sync.WaitGroup

	// Of the processes by name, once stopped.
	CPU    map[string]time.Duration
	Peak   map[string]int64        // bytes, resident: as sampled, and not less than the kernel's own record
	Memory map[string][][2]float64 // seconds since the start, bytes
}

// sampleEvery is rare enough to cost nothing and often enough for a plot of seconds.
const sampleEvery = 200 * time.Millisecond

// StartMeter watches until Stop is called.
func StartMeter(pids map[string]int) *Meter {
	m := &Meter{
		pids: maps.Clone(pids), begun: time.Now(), before: usageOf(pids), stop: make(chan struct{}),
		CPU: map[string]time.Duration{}, Peak: map[string]int64{}, Memory: map[string][][2]float64{},
	}
	m.done.Go(m.watch)
	return m
}

// Stop ends the watch; the fields may be read now.
func (m *Meter) Stop() {
	after := usageOf(m.pids)
	close(m.stop)
	m.done.Wait()
	for name, pid := range m.pids {
		m.CPU[name] = after[name].CPU - m.before[name].CPU
		m.Peak[name] = max(m.Peak[name], peakOf(pid))
	}
}

func (m *Meter) watch() {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		for name, u := range usageOf(m.pids) {
			m.Peak[name] = max(m.Peak[name], u.Memory)
			m.Memory[name] = append(m.Memory[name], [2]float64{time.Since(m.begun).Seconds(), float64(u.Memory)})
		}
		select {
		case <-m.stop:
			return
		case <-ticker.C:
		}
	}
}
