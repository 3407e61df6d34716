package stream

import (
	"bytes"
	"sync"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lz4Blocks compresses batches as Java's producer does: independent blocks of 64 KiB, and no checksum of the
// content, which the batch's own CRC covers (Lz4BlockOutputStream.java). kgo's own compressor takes blocks of
// 4 MiB: it copies each batch into one, and reads it once more for the checksum. Safe for concurrent use.
type lz4Blocks struct{}

var lz4Writers = sync.Pool{New: func() any {
	w := lz4.NewWriter(nil)
	_ = w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)) // refuses no valid options of a new writer
	return w
}}

// Compress gives what stands in dst. On an error, which memory gives none, the batch goes as it is.
func (lz4Blocks) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	w := lz4Writers.Get().(*lz4.Writer)
	defer lz4Writers.Put(w)
	w.Reset(dst)
	_, err := w.Write(src)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, kgo.CodecError
	}
	return dst.Bytes(), kgo.CodecLz4
}
