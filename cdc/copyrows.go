package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// copyMagic begins the binary COPY format (PostgreSQL manual, COPY, "Binary Format").
var copyMagic = []byte("PGCOPY\n\xff\r\n\x00")

// copyRows parses a binary COPY of (id int8 or nothing, restaurant, client) from chunks cut
// anywhere. It is total and takes no more memory than the longest row.
type copyRows struct {
	rest   []byte // the beginning of a row whose end has not come
	headed bool   // the header was read
	done   bool   // the trailer was
}

// parse calls row for each complete row of the chunk.
func (c *copyRows) parse(chunk []byte, row addRow) error {
	if len(c.rest) > 0 {
		c.rest = append(c.rest, chunk...)
		chunk = c.rest
	}
	for !c.done {
		n, err := c.next(chunk, row)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		chunk = chunk[n:]
	}
	if c.done && len(chunk) > 0 {
		return fmt.Errorf("binary COPY: %d bytes behind its trailer", len(chunk))
	}
	c.rest = append(c.rest[:0], chunk...)
	return nil
}

// finish says whether the format ended as it should.
func (c *copyRows) finish() error {
	if !c.done {
		return errors.New("binary COPY ends without its trailer")
	}
	return nil
}

// next takes a header, row or trailer and returns its length, 0 when its end has not come.
func (c *copyRows) next(b []byte, row addRow) (int, error) {
	if !c.headed {
		return c.header(b)
	}
	if len(b) < 2 {
		return 0, nil
	}
	count := int(int16(binary.BigEndian.Uint16(b)))
	if count == -1 {
		c.done = true
		return 2, nil
	}
	if count != 2 && count != 3 {
		return 0, fmt.Errorf("binary COPY: a row of %d columns, want 2 or 3", count)
	}
	var values [3][]byte
	at := 2
	for i := 3 - count; i < 3; i++ {
		value, n, err := copyField(b[at:])
		if err != nil || n == 0 {
			return 0, err
		}
		values[i] = value
		at += n
	}
	var id int64
	if count == 3 {
		if len(values[0]) != 8 {
			return 0, fmt.Errorf("binary COPY: a key of %d bytes, want 8", len(values[0]))
		}
		id = int64(binary.BigEndian.Uint64(values[0]))
	}
	return at, row(id, values[1], values[2])
}

func (c *copyRows) header(b []byte) (int, error) {
	const fixed = 11 + 4 + 4 // signature, flags, length of the extension
	if len(b) < fixed {
		return 0, nil
	}
	if !bytes.HasPrefix(b, copyMagic) {
		return 0, errors.New("not a binary COPY")
	}
	extension := int(int32(binary.BigEndian.Uint32(b[fixed-4:])))
	if extension < 0 {
		return 0, errors.New("binary COPY: negative length of the header extension")
	}
	if len(b)-fixed < extension {
		return 0, nil
	}
	c.headed = true
	return fixed + extension, nil
}

// copyField returns a value and its length with its prefix, 0 when its end has not come.
func copyField(b []byte) (value []byte, n int, err error) {
	if len(b) < 4 {
		return nil, 0, nil
	}
	size := int(int32(binary.BigEndian.Uint32(b)))
	if size == -1 {
		return nil, 4, nil
	}
	if size < 0 {
		return nil, 0, fmt.Errorf("binary COPY: a value of %d bytes", size)
	}
	if len(b)-4 < size {
		return nil, 0, nil
	}
	return b[4 : 4+size : 4+size], 4 + size, nil
}
