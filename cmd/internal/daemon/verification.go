package daemon

import (
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// Comparer asks how far the group is with the topic of a message. It connects to nothing yet.
func Comparer(s *settings.Settings, trigger string) (*stream.Comparer, error) {
	topic, _, _, err := stream.ParseTrigger(trigger)
	if err != nil {
		return nil, err
	}
	kafka := kafkaConfig(s)
	kafka.Input = topic
	return stream.NewComparer(kafka)
}

// Verification is what the settings say about comparing both sinks.
func Verification(s *settings.Settings) stream.Verification {
	return stream.Verification{
		Kafka: kafkaConfig(s), FeedbackDSN: s.Feedback.DSN.Reveal(), FeedbackTable: s.Feedback.Table.Identifier(),
		Mode: stream.Mode(s.Delivery.Mode),
	}
}
