//go:build !linux

package testbed

import "syscall"

// attributes make a contender the leader of a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
