package testbed

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usageOf reads /proc (proc(5)) once for processes and all their descendants; of one that is gone it
// is zero.
func usageOf(pids map[string]int) map[string]Usage {
	all := readProcesses()
	u := map[string]Usage{}
	for name, pid := range pids {
		u[name] = all.tree(pid)
	}
	return u
}

type processes struct {
	usage    map[int]Usage
	children map[int][]int
}

func (p processes) tree(pid int) Usage {
	u := p.usage[pid]
	for _, child := range p.children[pid] {
		of := p.tree(child)
		u.CPU += of.CPU
		u.Memory += of.Memory
	}
	return u
}

func readProcesses() processes {
	p := processes{usage: map[int]Usage{}, children: map[int][]int{}}
	entries, _ := os.ReadDir("/proc") // nothing: everything is zero
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, u, ok := readStat(pid); ok {
			p.usage[pid] = u
			p.children[parent] = append(p.children[parent], pid)
		}
	}
	return p
}

func readStat(pid int) (parent int, u Usage, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, u, false
	}
	// Counted behind the name, which may hold anything. Times are also of children that have ended.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const ppid, utime, cstime, rss = 1, 11, 14, 21
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	for i := utime; i <= cstime; i++ {
		u.CPU += time.Duration(number(i)) * tick
	}
	u.Memory = number(rss) * int64(os.Getpagesize())
	return int(number(ppid)), u, true
}

// peakOf is the kernel's own record of one process, without children: bytes, resident.
func peakOf(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if kilobytes, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kilobytes)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}
