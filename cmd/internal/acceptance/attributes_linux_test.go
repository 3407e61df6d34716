package acceptance

import "syscall"

// mortal is for a program that must not outlive the tests.
func mortal() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// mortalGroup is the same in a process group of its own, so that all of it can be ended.
func mortalGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
