//go:build !linux

package soak

import "syscall"

// childAttributes keep Ctrl-C from the daemons.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
