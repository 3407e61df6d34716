package daemon

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// parts are what a daemon is made of.
type parts struct {
	source   *cdc.Source
	index    *cache.Index
	reader   *cdc.Reader
	feedback *feedback
	engine   *stream.Engine
	ready    *readiness
	wasReady bool // of watch's goroutine; read after that has ended
}

// build makes the parts; it connects to nothing.
func build(o Options, registry *prometheus.Registry, ready *readiness, tracer trace.Tracer) (*parts, error) {
	p := &parts{ready: ready, feedback: &feedback{settings: o.Settings.Feedback, group: o.Settings.Kafka.Group, log: o.Log.With("part", "feedback")}}
	source := sourceConfig(o, registry)
	var err error
	if p.source, err = cdc.NewSource(source); err != nil {
		return nil, fmt.Errorf("source database: %w", err)
	}
	p.index, err = cache.New(cache.Config{
		Budget: int64(o.Settings.Index.Budget), SpillDir: o.Settings.Index.SpillDir, Metrics: cache.NewMetrics(registry), Logger: o.Log.With("part", "index"),
	}, p.source)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("index: %w", err)
	}
	var follow cdc.Index = p.index
	if o.spoil != nil {
		follow = o.spoil(follow)
	}
	if p.reader, err = cdc.New(source, p.source, follow); err != nil {
		p.close()
		return nil, fmt.Errorf("source database: %w", err)
	}
	if p.engine, err = stream.New(p.streamConfig(o, registry, tracer), p.index, p.reader); err != nil {
		p.close()
		return nil, fmt.Errorf("stream: %w", err)
	}
	ready.of(p.engine.Progress, p.reader, p.engine)
	registry.MustRegister(limitGauge(o))
	return p, nil
}

// limitGauge stands beside tiffin_slot_retained_bytes, so that a board and an alert need not know the
// settings.
func limitGauge(o Options) prometheus.Collector {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tiffin_slot_retained_limit_bytes", Help: "source.max_retained_wal: beyond it the slot is given up.",
	})
	gauge.Set(float64(o.Settings.Source.MaxRetainedWAL))
	return gauge
}

func (p *parts) close() {
	if p.index != nil {
		p.index.Close()
	}
	if p.source != nil {
		p.source.Close()
	}
}

func sourceConfig(o Options, registry *prometheus.Registry) cdc.Config {
	s := o.Settings.Source
	return cdc.Config{
		DSN:            s.DSN.Reveal(),
		Table:          s.Table.String(),
		Publication:    s.Publication,
		Slot:           s.Slot,
		Setup:          cdc.Setup(s.Setup),
		Fence:          cdc.FenceMode(s.Fence),
		MaxStaleness:   s.MaxStaleness,
		MaxRetainedWAL: int64(s.MaxRetainedWAL),
		Failover:       s.Failover,
		Log:            o.Log.With("part", "source"),
		Metrics:        cdc.NewMetrics(registry),
	}
}

func (p *parts) streamConfig(o Options, registry *prometheus.Registry, tracer trace.Tracer) stream.Config {
	s := o.Settings
	behind := o.LedgerBehind
	if behind == "" {
		behind = stream.LedgerStop
	}
	return stream.Config{
		Kafka:                 kafkaConfig(s),
		FeedbackDSN:           s.Feedback.DSN.Reveal(),
		Prepare:               p.feedback.prepare,
		FeedbackTable:         s.Feedback.Table.Identifier(),
		Mode:                  stream.Mode(s.Delivery.Mode),
		MaxTransactionRecords: s.Delivery.MaxTransactionRecords,
		LedgerBehind:          behind,
		InputReset:            o.InputReset,
		UntilNow:              o.UntilNow,
		Log:                   o.Log.With("part", "stream"),
		Registerer:            registry,
		Tracer:                tracer,
	}
}

func kafkaConfig(s *settings.Settings) stream.KafkaConfig {
	k := s.Kafka
	return stream.KafkaConfig{
		Brokers:    k.Brokers,
		Group:      k.Group,
		InstanceID: k.InstanceID,
		// Each process of a group has a slot of its own, and keeps it over restarts.
		Process:    s.Source.Slot,
		Input:      k.Input,
		Output:     k.Output,
		DeadLetter: k.DeadLetter,
		Start:      stream.Start(k.Start),
		TLS:        stream.TLSConfig(k.TLS),
		SASL:       saslConfig(k.SASL),

		SessionTimeout: k.SessionTimeout,
	}
}

func saslConfig(s settings.SASL) stream.SASLConfig {
	return stream.SASLConfig{Mechanism: s.Mechanism, Username: s.Username, Password: s.Password.Reveal(), PasswordNow: func() (string, error) {
		password, err := s.PasswordNow()
		return password.Reveal(), err
	}}
}
