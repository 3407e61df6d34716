package cdc

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/pulse"
)

// rowBlock is a run of messages of a COPY, each with one whole row, and the buffer that it lies in.
type rowBlock struct {
	messages, buffer []byte
}

// rowBuilders bring the rows that connections read into the index, on goroutines of their own: to note a row
// takes longer than to read it. A block is lent to one of them; the buffers bound what waits.
type rowBuilders struct {
	blocks chan rowBlock
	free   chan []byte
	nulls  atomic.Int64 // rows without a restaurant or a client
	alive  *pulse.Pulse
}

// blocksPerBuilder buffers for each: one in hand, one waiting.
const blocksPerBuilder = 2

func newRowBuilders(builders int, alive *pulse.Pulse) *rowBuilders {
	n := blocksPerBuilder * builders
	b := &rowBuilders{blocks: make(chan rowBlock, n), free: make(chan []byte, n), alive: alive}
	for range n {
		b.free <- nil
	}
	return b
}

// addRow takes a row; the bytes are valid during the call, and a NULL is nil.
type addRow func(id int64, restaurant, client []byte) error

// build adds the rows of one block after the other until there are no more.
func (b *rowBuilders) build(add addRow) error {
	for block := range b.blocks {
		b.alive.Beat()
		rows := copyRows{headed: true}
		for messages := block.messages; len(messages) > 0; {
			size := rowMessage(messages)
			if err := rows.parse(messages[messageHead:size], add); err != nil {
				return err
			}
			messages = messages[size:]
		}
		if len(block.buffer) != copyBuffer { // it grew for one long row
			block.buffer = nil
		}
		b.free <- block.buffer
	}
	return nil
}

// buildInto is build into a batch.
func (b *rowBuilders) buildInto(batch *cache.Batch) error {
	if err := b.build(b.into(batch)); err != nil {
		return err
	}
	return batch.Flush()
}

// into adds to a batch, and counts what is no subscription.
func (b *rowBuilders) into(batch *cache.Batch) addRow {
	return func(id int64, restaurant, client []byte) error {
		if restaurant == nil || client == nil {
			b.nulls.Add(1)
			restaurant, client = nothing, nothing
		}
		return batch.Add(id, restaurant, client)
	}
}

// buffer waits for one that is free.
func (b *rowBuilders) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buffer := <-b.free:
		if buffer == nil {
			buffer = make([]byte, copyBuffer)
		}
		return buffer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lend gives a block to one of the builders.
func (b *rowBuilders) lend(ctx context.Context, block rowBlock) error {
	select {
	case b.blocks <- block:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rowTaker takes what a COPY sends, in order.
type rowTaker interface {
	// content takes that of one message, valid during the call.
	content(b []byte) error
	// wants says that blocks may come; only content changes that.
	wants() bool
	// buffer is one for what comes behind a block.
	buffer() ([]byte, error)
	// block takes messages with a whole row each, in a buffer that is the taker's from then on.
	block(b rowBlock) error
}

// rangeTaker has the rows of a range of the table built, and adds by itself those that do not come whole, a
// message each, or are too long for a block.
type rangeTaker struct {
	ctx  context.Context //nolint:containedctx // the load's, of one call
	to   *rowBuilders
	rows copyRows
	add  addRow
}

func (r *rangeTaker) content(b []byte) error { return r.rows.parse(b, r.add) }

func (r *rangeTaker) wants() bool { return r.rows.headed && !r.rows.done && len(r.rows.rest) == 0 }

func (r *rangeTaker) buffer() ([]byte, error) { return r.to.buffer(r.ctx) }

func (r *rangeTaker) block(b rowBlock) error { return r.to.lend(r.ctx, b) }

// rowMessages is the size of all rowMessages that b begins with.
func rowMessages(b []byte) (all int) {
	for {
		size := rowMessage(b[all:])
		if size == 0 {
			return all
		}
		all += size
	}
}

// rowMessage is the size of the message that b begins with if that is a CopyData with one whole row of a binary
// COPY, of which all is there; 0 otherwise. The server sends a row a message (CopySendEndOfRow in copyto.c), which the
// protocol does not promise.
func rowMessage(b []byte) int {
	const head = messageHead + 2
	if len(b) < head || b[0] != 'd' {
		return 0
	}
	size := 1 + int(int32(binary.BigEndian.Uint32(b[1:])))
	count := int(binary.BigEndian.Uint16(b[messageHead:]))
	if size > len(b) || count != 2 && count != 3 {
		return 0
	}
	at := head
	for range count {
		if at+4 > size {
			return 0
		}
		length := int(int32(binary.BigEndian.Uint32(b[at:])))
		if at += 4; length > 0 {
			at += length
		}
	}
	if at != size {
		return 0
	}
	return size
}
