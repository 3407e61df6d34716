package devstack

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
)

// Delivery is one client of one campaign message, as the contract writes it to both sinks.
type Delivery struct {
	Restaurant   string `json:"restaurant_id"`
	CampaignID   string `json:"adv_campaign_id"`
	Content      string `json:"adv_campaign_content"`
	Owner        string `json:"adv_campaign_owner"`
	OwnerContact string `json:"adv_campaign_owner_contact"`
	Start        int64  `json:"adv_campaign_datetime_start"`
	End          int64  `json:"adv_campaign_datetime_end"`
	Created      int64  `json:"datetime_created"`
	Client       string `json:"client_id"`
	Trigger      int64  `json:"trigger_datetime_created"`
}

// ParseDelivery reads the value of an output record.
func ParseDelivery(value []byte) (Delivery, error) {
	var d Delivery
	if err := json.Unmarshal(value, &d); err != nil {
		return Delivery{}, fmt.Errorf("output record %.200q: %w", value, err)
	}
	return d, nil
}

// Fingerprint tells whether two multisets of deliveries are the same without keeping them. Those
// that are compared must begin as copies of one that NewFingerprint made. The chance that different
// sets of the same size look equal is 2^-64. It is for one goroutine.
type Fingerprint struct {
	Count int64 // deliveries added

	seed maphash.Seed
	sum  uint64 // of the hashes, in no order
}

// NewFingerprint is of no deliveries.
func NewFingerprint() Fingerprint { return Fingerprint{seed: maphash.MakeSeed()} }

// Add takes one more delivery into account.
func (f *Fingerprint) Add(d Delivery) {
	f.Count++
	f.sum += maphash.Comparable(f.seed, d)
}

// Equal reports whether both are of the same deliveries, each as often.
func (f Fingerprint) Equal(other Fingerprint) bool {
	return f.Count == other.Count && f.sum == other.sum && f.seed == other.seed
}
