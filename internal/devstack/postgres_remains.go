package devstack

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// childrenOf lists the direct children of a process from /proc; none where there is no /proc.
func childrenOf(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	var children []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (comm) state ppid ...: the name may hold spaces and parentheses (proc(5)).
		after := bytes.LastIndexByte(b, ')')
		fields := strings.Fields(string(b[after+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// sharedMemoryID finds the System V segment that a server holds as its interlock: the second
// number of the seventh line of postmaster.pid (miscinit.c, AddToDataDirLockFile).
func sharedMemoryID(data string) (int, bool) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	const line = 6 // counted from 0
	lines := strings.Split(string(b), "\n")
	if len(lines) <= line {
		return 0, false
	}
	fields := strings.Fields(lines[line])
	if len(fields) != 2 {
		return 0, false
	}
	id, err := strconv.Atoi(fields[1])
	return id, err == nil
}
