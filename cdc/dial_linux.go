package cdc

import (
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
	if failed == unix.EOPNOTSUPP || failed == unix.ENOPROTOOPT { //nolint:errorlint // errno values, from a Unix socket
		return nil
	}
	return failed
}
