package livepage

// Figures are one event: what the page shows of the whole daemon. They name no campaign and no
// client. Rates are per second, over the last rateSpan; times are seconds.
type Figures struct {
	At       int64    `json:"at"` // Unix milliseconds
	Reasons  []string `json:"reasons"`
	Progress []string `json:"progress"`

	Rates     Rates              `json:"rates"`
	Visible   Quantiles          `json:"visible"`  // commit to visible, over window
	Fence     Quantiles          `json:"fence"`    // over window
	Delivery  Quantiles          `json:"delivery"` // campaign to both sinks, over window
	Campaigns map[string]float64 `json:"campaigns"`
	Lookups   map[string]float64 `json:"lookups"`
	Index     IndexFigures       `json:"index"`
	Source    SourceFigures      `json:"source"`
	Sinks     SinkFigures        `json:"sinks"`
	Agreement *Agreement         `json:"agreement,omitempty"` // before the first answer: none
	// Point is the plot's newest, whenever there is a new one.
	Point *Point `json:"point,omitempty"`
}

// Rates are those of the flow's arrows, a second.
type Rates struct {
	Changes      float64 `json:"changes"`
	Transactions float64 `json:"transactions"`
	Lookups      float64 `json:"lookups"`
	Campaigns    float64 `json:"campaigns"`
	Deliveries   float64 `json:"deliveries"`
	DeadLetters  float64 `json:"dead_letters"`
}

// Quantiles in seconds, as exact as the histogram's buckets; without a count they mean nothing.
type Quantiles struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Count uint64  `json:"count"`
}

// IndexFigures are the index's.
type IndexFigures struct {
	Subscriptions float64 `json:"subscriptions"`
	Restaurants   float64 `json:"restaurants"`
	Bytes         float64 `json:"bytes"`
}

// SourceFigures are the source database's, in bytes.
type SourceFigures struct {
	Lag      float64 `json:"lag"`
	Retained float64 `json:"retained"`
	Limit    float64 `json:"limit"`
	Rebuilds float64 `json:"rebuilds"`
}

// SinkFigures are what this process counted since it began.
type SinkFigures struct {
	Deliveries  float64            `json:"deliveries"` // committed in both sinks
	Recovered   float64            `json:"recovered"`
	Retries     map[string]float64 `json:"retries"` // by sink
	DeadLetters float64            `json:"dead_letters"`
	Lanes       float64            `json:"lanes"`
	Left        float64            `json:"left"` // deliveries on lanes that are not in both sinks yet
}

// Point is one of the plot: the deliveries of pointSpan.
type Point struct {
	At int64 `json:"at"` // Unix milliseconds
	Quantiles
}

// figuresOf computes one event from the metrics now, a while ago and at the window's begin.
func figuresOf(now, earlier *sample, begin *mark) Figures {
	return Figures{
		At:        now.at.UnixMilli(),
		Rates:     ratesOf(now, earlier),
		Visible:   quantilesOf(now.histogram(visibleSeconds).since(begin.visible)),
		Fence:     quantilesOf(now.histogram(fenceSeconds).since(begin.fence)),
		Delivery:  quantilesOf(now.histogram(deliverySeconds).since(begin.delivery)),
		Campaigns: now.each("tiffin_campaigns_total"),
		Lookups:   now.each("tiffin_index_lookups_total"),
		Index: IndexFigures{
			Subscriptions: now.total("tiffin_index_subscriptions"),
			Restaurants:   now.total("tiffin_index_restaurants"),
			Bytes:         now.total("tiffin_index_bytes"),
		},
		Source: SourceFigures{
			Lag:      now.total("tiffin_cdc_lag_bytes"),
			Retained: now.total("tiffin_slot_retained_bytes"),
			Limit:    now.total("tiffin_slot_retained_limit_bytes"),
			Rebuilds: now.total("tiffin_rebuilds_total"),
		},
		Sinks: SinkFigures{
			Deliveries:  now.total("tiffin_deliveries_total"),
			Recovered:   now.total("tiffin_recovered_deliveries_total"),
			Retries:     now.each("tiffin_sink_retries_total"),
			DeadLetters: now.total("tiffin_dead_letters_total"),
			Lanes:       now.total("tiffin_lanes"),
			Left:        now.total("tiffin_lane_deliveries_left"),
		},
	}
}

// The histograms that are shown as quantiles.
const (
	visibleSeconds  = "tiffin_cdc_visible_seconds"
	fenceSeconds    = "tiffin_fence_seconds"
	deliverySeconds = "tiffin_delivery_seconds"
)

func ratesOf(now, earlier *sample) Rates {
	seconds := now.at.Sub(earlier.at).Seconds()
	rate := func(name string) float64 {
		if seconds <= 0 {
			return 0
		}
		return max(0, now.total(name)-earlier.total(name)) / seconds
	}
	return Rates{
		Changes:      rate("tiffin_cdc_changes_total"),
		Transactions: rate("tiffin_cdc_transactions_total"),
		Lookups:      rate("tiffin_index_lookups_total"),
		Campaigns:    rate("tiffin_campaigns_total"),
		Deliveries:   rate("tiffin_deliveries_total"),
		DeadLetters:  rate("tiffin_dead_letters_total"),
	}
}

func quantilesOf(h histogram) Quantiles {
	return Quantiles{P50: h.quantile(0.5), P99: h.quantile(0.99), Count: h.count}
}

// mark is what the histograms were at one moment.
type mark struct{ visible, fence, delivery histogram }

func markOf(s *sample) mark {
	return mark{visible: s.histogram(visibleSeconds), fence: s.histogram(fenceSeconds), delivery: s.histogram(deliverySeconds)}
}
