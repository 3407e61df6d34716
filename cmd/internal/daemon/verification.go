package daemon

import (
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// Verification is what the settings say about comparing both sinks.
func Verification(s *settings.Settings) stream.Verification {
	return stream.Verification{
		Kafka: kafkaConfig(s), FeedbackDSN: s.Feedback.DSN.Reveal(), FeedbackTable: s.Feedback.Table.Identifier(),
		Mode: stream.Mode(s.Delivery.Mode),
	}
}
