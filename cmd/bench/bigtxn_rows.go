package main

import (
	"encoding/hex"
	"fmt"
)

// What the rows are spread over. The first divides the second, and bigStep has an inverse, so that
// a restaurant's clients can be computed.
const (
	bigRestaurants = 50_000
	bigClients     = 1_000_000
	bigStep        = 7919
	bigInverse     = 17_679 // bigStep * bigInverse % bigClients is 1
	bigSuffix      = "-0000-4000-8000-000000000000"
)

// bigRows are rows with the ids from to to. Row i is of restaurant i % bigRestaurants and of a
// client that follows from i and the shift. They are computed and not kept: what this process
// holds and throws away is measured with the index.
type bigRows struct{ from, to, shift int }

func (b bigRows) insertSQL() string {
	return fmt.Sprintf(`INSERT INTO subscribers_restaurants (id, client_id, restaurant_id)
		SELECT i, %s, 'restaurant ' || i %% %d FROM generate_series(%d, %d) i`, bigClientSQL("i", b.shift), bigRestaurants, b.from, b.to)
}

func bigClientSQL(id string, shift int) string {
	return fmt.Sprintf("lpad(to_hex((%s::bigint * %d + %d) %% %d), 8, '0') || '%s'", id, bigStep, shift, bigClients, bigSuffix)
}

// clients is how many different ones of a restaurant the rows name.
func (b bigRows) clients(restaurant int) int {
	return min(b.ids(restaurant, bigRestaurants), bigClients/bigRestaurants)
}

// hold says whether the rows name this client of the restaurant.
func (b bigRows) hold(restaurant int, client []byte) bool {
	var number [4]byte
	if len(client) != 8+len(bigSuffix) || string(client[8:]) != bigSuffix {
		return false
	}
	if _, err := hex.Decode(number[:], client[:8]); err != nil {
		return false
	}
	n := int(number[0])<<24 | int(number[1])<<16 | int(number[2])<<8 | int(number[3])
	id := (n - b.shift + bigClients) * bigInverse % bigClients // of the ids, what they leave
	return n < bigClients && id%bigRestaurants == restaurant && b.ids(id, bigClients) > 0
}

// ids is how many of the ids leave a rest when they are divided.
func (b bigRows) ids(rest, by int) int {
	first := b.from + ((rest-b.from)%by+by)%by
	if first > b.to {
		return 0
	}
	return (b.to-first)/by + 1
}
