package devstack

import (
	"encoding/json"
	"time"
)

// Campaign is one message of the campaign topic, with the contract's names.
type Campaign struct {
	Restaurant   string `json:"restaurant_id"`
	ID           string `json:"adv_campaign_id"`
	Content      string `json:"adv_campaign_content"`
	Owner        string `json:"adv_campaign_owner"`
	OwnerContact string `json:"adv_campaign_owner_contact"`
	Start        int64  `json:"adv_campaign_datetime_start"` // Unix seconds, as the next two
	End          int64  `json:"adv_campaign_datetime_end"`
	Created      int64  `json:"datetime_created"`
}

// JSON is the record's value.
func (c Campaign) JSON() []byte {
	b, _ := json.Marshal(c) // of strings and integers: cannot fail
	return b
}

// Campaigns make campaigns that are active from an hour before Now until a day after. The same
// values give the same campaigns.
type Campaigns struct {
	Seed         uint64
	Now          time.Time
	ContentBytes int // of the text; 0: 64, with which a delivery has about 460 bytes
}

// Campaign is the n-th one, of this restaurant.
func (c Campaigns) Campaign(n int, restaurant string) Campaign {
	size := c.ContentBytes
	if size == 0 {
		size = 64
	}
	owners := [...]string{"Anna Petrova", "Ivan Ivanovich Ivanov", "María José Núñez", "Ли Вэй", "O'Brien & Sons"}
	owner := mix(c.Seed + uint64(n))
	return Campaign{
		Restaurant:   restaurant,
		ID:           numberedUUID(c.Seed+3, uint64(n)),
		Content:      content(c.Seed+uint64(n), size),
		Owner:        owners[owner%uint64(len(owners))],
		OwnerContact: "owner" + string(rune('a'+owner>>32%26)) + "@restaurant.example",
		Start:        c.Now.Add(-time.Hour).Unix(),
		End:          c.Now.Add(24 * time.Hour).Unix(),
		Created:      c.Now.Add(-2 * time.Hour).Unix(),
	}
}

// content is a text of size bytes, of words that compress about as well as prose.
func content(seed uint64, size int) string {
	words := [...]string{"two", "for", "one", "soup", "and", "dumplings", "today", "until", "noon", "a", "free", "dessert", "with", "every", "lunch", "new", "menu", "bring", "friends", "tea"}
	b := make([]byte, 0, size+16)
	for len(b) < size {
		seed = mix(seed)
		b = append(b, words[seed%uint64(len(words))]...)
		b = append(b, ' ')
	}
	return string(b[:size])
}

// Delivery is what the contract makes of the campaign for one client.
func (c Campaign) Delivery(client string, trigger int64) Delivery {
	return Delivery{
		Restaurant: c.Restaurant, CampaignID: c.ID, Content: c.Content, Owner: c.Owner, OwnerContact: c.OwnerContact,
		Start: c.Start, End: c.End, Created: c.Created, Client: client, Trigger: trigger,
	}
}
