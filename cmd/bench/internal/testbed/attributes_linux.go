package testbed

import "syscall"

// attributes make a contender the leader of a group of its own, which dies with bench.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
