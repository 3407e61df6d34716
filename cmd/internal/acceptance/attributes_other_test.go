//go:build !linux

package acceptance

import "syscall"

// mortal is for a program that must not outlive the tests. There is no parent-death signal here.
func mortal() *syscall.SysProcAttr { return nil }

// mortalGroup is the same in a process group of its own, so that all of it can be ended.
func mortalGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
