package stream

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Whatever the size of a batch, what was compressed is read again, and the frame is one that every client
// reads: Java's takes independent blocks only.
func TestBatchesAreCompressedAsJavaDoes(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, size := range []int{0, 1, 500, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		all.Go(func() {
			var src []byte
			for i := 0; len(src) < size; i++ {
				src = fmt.Appendf(src, `{"adv_campaign_content":"first campaign","client_id":"%d"}`, i*i)
			}
			src = src[:size]
			for range 3 { // the second time by a writer that was used
				var dst bytes.Buffer
				out, codec := lz4Blocks{}.Compress(&dst, src)
				if codec != kgo.CodecLz4 {
					t.Errorf("%d bytes: codec %d", size, codec)
					return
				}
				// LZ4 Frame Format: version 01, independent blocks, no checksums, no size; then the block's.
				if flags, most := out[4], out[5]; flags != 0b0110_0000 || most != 4<<4 {
					t.Errorf("%d bytes: the frame's flags are %08b, its blocks of kind %08b", size, flags, most)
				}
				if got, err := io.ReadAll(lz4.NewReader(bytes.NewReader(out))); err != nil || !bytes.Equal(got, src) {
					t.Errorf("%d bytes: %d are read again: %v", size, len(got), err)
				}
			}
		})
	}
}
