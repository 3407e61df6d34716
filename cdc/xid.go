package cdc

// extend gives a transaction id of 32 bits, as the log has it, the epoch that brings it
// nearest to ref, a 64-bit id known to be of the same time. Postgres never has two ids in use
// that lie 2^31 or more apart (src/backend/access/transam/README).
func extend(ref uint64, xid uint32) uint64 {
	return ref + uint64(int64(int32(xid-uint32(ref))))
}
