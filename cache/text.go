package cache

import "encoding/binary"

// text is a client or restaurant id as the dictionary stores it. A canonical lower-case UUID
// takes 16 bytes instead of 36, a text of up to 16 bytes lies in place, anything else is a
// string of its own.
type text struct {
	kind  uint8
	short [16]byte
	long  []byte // aliases the caller's bytes
}

const (
	kindFree   = 0 // the number is not in use
	kindUUID   = 1
	kindLong   = 2
	kindInline = 3 // plus the length, 0 to 16
)

// uuidLen is the length of a UUID's text form (RFC 9562, section 4).
const uuidLen = 36

// pack makes t the text b, and alias it if it is long.
func (t *text) pack(b []byte) {
	if len(b) == uuidLen && packUUID(&t.short, b) {
		t.kind, t.long = kindUUID, nil
		return
	}
	t.short = [16]byte{}
	if len(b) <= len(t.short) {
		t.kind, t.long = kindInline+uint8(len(b)), nil
		copy(t.short[:], b)
		return
	}
	t.kind, t.long = kindLong, b
}

// len is the text's length in bytes.
func (t *text) len() uint32 {
	switch t.kind {
	case kindUUID:
		return uuidLen
	case kindLong:
		return uint32(len(t.long))
	default:
		return uint32(t.kind - kindInline)
	}
}

// stored is a text as the dictionary holds it.
type stored struct {
	kind  uint8
	short [16]byte
	long  string
}

func (t *stored) appendTo(to []byte) []byte {
	switch t.kind {
	case kindUUID:
		return appendUUID(to, &t.short)
	case kindLong:
		return append(to, t.long...)
	default:
		return append(to, t.short[:t.kind-kindInline]...)
	}
}

// packUUID reports whether b is a UUID in the one form that prints back to b.
func packUUID(to *[16]byte, b []byte) bool {
	if b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return false
	}
	word := func(at, next int) uint64 { // four digits at one place, four at another
		return uint64(binary.LittleEndian.Uint32(b[at:])) | uint64(binary.LittleEndian.Uint32(b[next:]))<<32
	}
	first, ok1 := fromHex(word(0, 4))
	second, ok2 := fromHex(word(9, 14))
	third, ok3 := fromHex(word(19, 24))
	fourth, ok4 := fromHex(word(28, 32))
	binary.LittleEndian.PutUint32(to[0:], first)
	binary.LittleEndian.PutUint32(to[4:], second)
	binary.LittleEndian.PutUint32(to[8:], third)
	binary.LittleEndian.PutUint32(to[12:], fourth)
	return ok1 && ok2 && ok3 && ok4
}

// fromHex reads eight lower-case hexadecimal digits at once, the first in the lowest byte,
// into four bytes in the same order. It reports whether that is what they were: a digit a
// step of a loop took a third of the time of staging a change.
func fromHex(digits uint64) (uint32, bool) {
	const each = 0x0101010101010101
	letter := digits >> 6 & each // 'a' to 'f' have bit 6, '0' to '9' have not
	n := digits&(15*each) + 9*letter
	// Printing is the proof: another character prints as something else.
	above := (n + 6*each) >> 4 & each
	if n&(240*each) != 0 || n+'0'*each+above*('a'-'9'-1) != digits {
		return 0, false
	}
	n = (n<<4 | n>>8) & 0x00ff00ff00ff00ff
	n = (n | n>>8) & 0x0000ffff0000ffff
	return uint32(n | n>>16), true
}

// appendUUID prints what packUUID read.
func appendUUID(to []byte, u *[16]byte) []byte {
	var text [uuidLen]byte
	a, b := toHex(binary.BigEndian.Uint32(u[0:])), toHex(binary.BigEndian.Uint32(u[4:]))
	c, d := toHex(binary.BigEndian.Uint32(u[8:])), toHex(binary.BigEndian.Uint32(u[12:]))
	binary.BigEndian.PutUint64(text[0:], a)
	binary.BigEndian.PutUint32(text[9:], uint32(b>>32))
	binary.BigEndian.PutUint32(text[14:], uint32(b))
	binary.BigEndian.PutUint32(text[19:], uint32(c>>32))
	binary.BigEndian.PutUint32(text[24:], uint32(c))
	binary.BigEndian.PutUint64(text[28:], d)
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return append(to, text[:]...)
}

// toHex is the opposite of fromHex: eight digits at once, the first one in the highest byte.
func toHex(value uint32) uint64 {
	n := uint64(value)
	n = (n | n<<16) & 0x0000ffff0000ffff
	n = (n | n<<8) & 0x00ff00ff00ff00ff
	n = (n | n<<4) & 0x0f0f0f0f0f0f0f0f
	letters := (n + 0x0606060606060606) >> 4 & 0x0101010101010101 // one in each byte above 9
	return n + 0x3030303030303030 + letters*('a'-'9'-1)
}
