package stream

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// clientMetrics are the options that count what a client exchanges with the brokers, as
// tiffin_kafka_* with the label client. kprom registers a client's metrics when it is made and
// takes them back when it is closed, so each client needs an instance of its own, and two of one
// name may not live at once: a session closes its clients before the next one makes them. Its
// counters begin at 0 with each session, which rate() allows for.
func clientMetrics(reg prometheus.Registerer, name string) []kgo.Opt {
	if reg == nil {
		return nil
	}
	return []kgo.Opt{kgo.WithHooks(kprom.NewMetrics("tiffin_kafka",
		kprom.Registerer(reg), kprom.WithStaticLabel(prometheus.Labels{"client": name})))}
}
