package cdc

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnacknowledged ends a connection whose peer has not acknowledged what was sent for 20
// s; otherwise a lost route would be noticed after a quarter of an hour (tcp(7)).
func boundUnacknowledged(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20_000)
	})
	if err != nil {
		return err
	}
	if errors.Is(failed, unix.EOPNOTSUPP) || errors.Is(failed, unix.ENOPROTOOPT) { // a Unix socket
		return nil
	}
	return failed
}
