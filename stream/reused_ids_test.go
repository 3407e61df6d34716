package stream_test

import (
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Between a crash and the recovery somebody empties the feedback table with RESTART IDENTITY and puts
// rows of another campaign into it: they have the ids that the manifest names, and are not its message's.
// None is sent under its name, and it is told.
func TestRowsThatTookOverIDsAreNotSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b", "c", "d"}})
	r.publishSome(0, 1)
	r.untilNow()
	r.wantDelivered(4, 4)
	r.setOffset(0, 0, "tiffin")
	// Theirs take the ids from 1 on: all of ours but the last.
	theirs := r.number(`SELECT upper(feedback_ids) FROM tiffin.trigger`) - 2
	r.db.Exec(t, `TRUNCATE subscribers_feedback RESTART IDENTITY`, `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content,
		adv_campaign_owner, adv_campaign_owner_contact, adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
		SELECT 'r', 'theirs', '', '', '', 0, 9, 1, client::text, 1700000000, '' FROM generate_series(1, `+strconv.Itoa(theirs)+`) client`)
	log := r.logging()
	registry := prometheus.NewRegistry()
	r.cfg.Registerer = registry
	r.untilNow()
	r.wantDelivered(theirs, 4)
	if n := lost(t, registry, "rows"); n != 1 {
		t.Errorf("%v messages without their rows are counted, want 1", n)
	}
	log.wants(t, "feedback rows are not the message's any more")
	log.wants(t, "rows=3")
	log.wants(t, "feedback rows were deleted before their records went out")
	log.wants(t, "rows=1")
	if at := r.groupOffset(0); at != 1 {
		t.Errorf("group offset %d, want 1", at)
	}
}
