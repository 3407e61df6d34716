package devstack

import "golang.org/x/sys/unix"

// releaseSharedMemory removes the segment that a killed server left; the next start in the same
// data directory would have done it, but there will be none.
func releaseSharedMemory(data string) {
	if id, ok := sharedMemoryID(data); ok {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // gone already: nothing to do
	}
}
