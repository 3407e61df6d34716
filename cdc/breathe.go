package cdc

import "context"

// breathe is called in the middle of applying a large transaction, on the owner's goroutine:
// a server that hears nothing for wal_sender_timeout would end the stream. It listens for a
// status also while it waits to send. The position is still that of the transaction before.
func (s *session) breathe(ctx context.Context) {
	s.pulse.Beat()
	now := s.cfg.Now()
	if now.Sub(s.lastStatus) < s.statusEvery {
		return
	}
	if err := s.status(ctx, now, false); err != nil {
		s.fail(err)
	}
}
