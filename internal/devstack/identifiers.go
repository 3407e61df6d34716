package devstack

import "encoding/hex"

// numberedUUID is the text of a version 4 UUID that belongs to number n below 2^58; different
// numbers have different ones.
func numberedUUID(seed, n uint64) string {
	high, low := mix(seed), mix(seed^mix(n))
	// Of n itself 58 bits, scrambled reversibly, keep the texts apart.
	n = (n*0x9e3779b97f4a7c15 + high) & (1<<58 - 1)
	var b [16]byte
	for i := range 6 {
		b[i] = byte(low >> (8 * i))
	}
	b[6], b[7] = 0x40|byte(low>>48)&0x0f, byte(low>>56)
	b[8] = 0x80 | byte(n>>56)&0x03 // the variant takes two bits; two more of n go below
	for i := range 7 {
		b[9+i] = byte(n >> (8 * i))
	}
	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
// Generators, 2014): a permutation of the 64-bit numbers.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
