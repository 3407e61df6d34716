package demo

import (
	"fmt"
	"strings"
	"time"

	"example.com/tiffin/internal/devstack"
)

// invitation is what to try in another terminal while the demo runs. Every line works as it is.
func (s *show) invitation() string {
	w := s.world
	broker := strings.Join(w.broker.Brokers(), ",")
	sql := fmt.Sprintf("%s '%s' -c", w.psql(), w.dsn())
	restaurant := w.source.Restaurant(0)
	campaign := devstack.Campaign{
		Restaurant: restaurant, ID: "mine", Content: "hello", Owner: "me", OwnerContact: "me@example.com",
		End: s.begun.Add(30 * 24 * time.Hour).Unix(), Created: s.begun.Unix(), Start: s.begun.Unix(),
	}
	lines := []string{
		"try in another terminal:",
		"  # watch the deliveries",
		"  kcat -C -b " + broker + " -t deliveries -o end -q",
		"  # subscribe, publish a campaign, find the record and the row",
		"  " + sql + " \"INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('me', '" + restaurant + "')\"",
		"  echo '" + string(campaign.JSON()) + "' | kcat -P -b " + broker + " -t campaigns",
		"  kcat -C -b " + broker + " -t deliveries -o beginning -e -q -X fetch.wait.max.ms=10 | grep '\"client_id\":\"me\"'",
		"  " + sql + " \"SELECT * FROM subscribers_feedback WHERE client_id = 'me'\"",
		"  # what became of each campaign",
		"  " + sql + " \"SELECT * FROM tiffin.trigger ORDER BY handled_at DESC LIMIT 5\"",
		"  # the live page and the metrics",
		"  " + s.endpoint + "/  " + s.endpoint + "/metrics",
		"Ctrl-C ends the demo and removes all of it.",
	}
	return strings.Join(lines, "\n") + "\n"
}
