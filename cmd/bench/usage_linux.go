package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has taken so far.
type usage struct {
	cpu  time.Duration
	peak int64 // bytes of memory, resident
}

// usageOf reads /proc (proc(5)); one of a process that is gone is zero.
func usageOf(pid int) (u usage) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 11, 12        // utime and stime, counted behind the name
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	for _, i := range []int{user, system} {
		if ticks, err := strconv.ParseInt(fields[i], 10, 64); err == nil {
			u.cpu += time.Duration(ticks) * tick
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		if kilobytes, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kilobytes)[0], 10, 64)
			u.peak = n << 10
		}
	}
	return u
}
