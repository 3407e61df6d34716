//go:build !linux

package devstack

import "syscall"

// attributes gives a server its own process group. There is no parent-death signal here.
func attributes(as *account, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
}
