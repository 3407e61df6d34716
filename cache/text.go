package cache

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

func pack(b []byte) text {
	var t text
	if len(b) == uuidLen && packUUID(&t.short, b) {
		t.kind = kindUUID
		return t
	}
	if len(b) <= len(t.short) {
		t.short = [16]byte{}
		t.kind = kindInline + uint8(len(b))
		copy(t.short[:], b)
		return t
	}
	t.kind, t.short, t.long = kindLong, [16]byte{}, b
	return t
}

// packUUID reports whether b is a UUID in the one form that prints back to b.
func packUUID(to *[16]byte, b []byte) bool {
	i := 0
	for pos := 0; pos < uuidLen; {
		if pos == 8 || pos == 13 || pos == 18 || pos == 23 {
			if b[pos] != '-' {
				return false
			}
			pos++
			continue
		}
		hi, lo := nibble(b[pos]), nibble(b[pos+1])
		if hi|lo > 15 {
			return false
		}
		to[i] = hi<<4 | lo
		i++
		pos += 2
	}
	return true
}

// nibble is the value of a lower-case hexadecimal digit, 255 for anything else.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// appendUUID prints what packUUID read.
func appendUUID(to []byte, u *[16]byte) []byte {
	const digits = "0123456789abcdef"
	var text [uuidLen]byte
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	for i, at := range [16]uint8{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
		b := u[i]
		text[at], text[at+1] = digits[b>>4], digits[b&15]
	}
	return append(to, text[:]...)
}
