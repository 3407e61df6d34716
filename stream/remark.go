package stream

import "log/slog"

// fewMessages is how many messages a remark names before it only counts them: a table that was emptied,
// or a topic that was, would fill the log with a line a message.
const fewMessages = 5

// remark is something that may hold of many messages: the first few are told each, at the end how many
// there were.
type remark struct {
	log  func(text string, args ...any)
	text string
	// unit names what amount counts beside the messages, if anything.
	unit string

	messages int
	amount   int64
}

func (m *remark) add(trigger string, amount int64) {
	m.messages++
	m.amount += amount
	if m.messages <= fewMessages {
		m.say(m.text, slog.String("trigger", trigger), amount)
	}
}

func (m *remark) say(text string, of slog.Attr, amount int64) {
	if m.unit == "" {
		m.log(text, of)
		return
	}
	m.log(text, of, slog.Int64(m.unit, amount))
}

func (m *remark) end() {
	if m.messages > fewMessages {
		m.say(m.text+"; so it is with more messages, of which only the first are named", slog.Int("messages", m.messages), m.amount)
	}
}
