package soak

import "syscall"

// childAttributes keep Ctrl-C from the daemons, which die with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
