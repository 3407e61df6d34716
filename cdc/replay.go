package cdc

import (
	"context"

	"example.com/tiffin/cache"
)

// Replay applies captured messages to an index, by the code that a Reader applies those of a
// server with: decoding, assembling, applying. It is for measurements. One goroutine uses it.
type Replay struct {
	idx     Index
	txn     *cache.Txn
	asm     *assembler
	applied cache.LSN
}

// NewReplay loads the table into idx, which src is read through by, over connections of its
// own. Messages are then to be of a slot that was made before.
func NewReplay(ctx context.Context, cfg Config, src *Source, idx Index) (*Replay, error) {
	r, err := New(cfg, src, idx)
	if err != nil {
		return nil, err
	}
	conn, err := r.cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	l, err := load(ctx, &r.cfg, conn, idx, src.learn)
	if err != nil {
		return nil, err
	}
	r.table, r.snapshot = l.table, l.snapshot
	txn := idx.NewTxn()
	return &Replay{idx: idx, txn: txn, asm: r.assembler(txn)}, nil
}

// Message takes the next message of pgoutput, protocol version 1; the bytes may be reused
// afterwards. A Commit applies its transaction, unless the load has seen it.
func (r *Replay) Message(msg []byte) error {
	done, err := r.asm.message(msg, r.applied)
	if err != nil || done == nil {
		return err
	}
	r.applied = max(r.applied, done.commit.End)
	if !done.changed {
		return nil
	}
	return r.idx.Apply(r.txn, done.commit)
}
