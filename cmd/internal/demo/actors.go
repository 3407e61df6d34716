package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// publish sends one campaign after the other, each right after a change of its restaurant: a new
// client subscribes and must be served; later it leaves, and must not be served any more.
func (s *show) publish(ctx context.Context) error {
	conn, err := s.world.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.world.broker.Brokers()...), kgo.DefaultProduceTopic(s.world.settings.Kafka.Input))
	if err != nil {
		return fmt.Errorf("connect to the demo's broker: %w", err)
	}
	defer client.Close()
	campaigns := devstack.Campaigns{Seed: uint64(s.begun.UnixNano())}
	return every(ctx, s.options.Campaigns, func(n int) error {
		campaigns.Now = time.Now()
		about, leaves := promise{}, false
		if n%2 == 1 {
			about, leaves = s.promises.leaver()
		}
		if !leaves {
			about = promise{client: fmt.Sprintf("newcomer-%d", n), restaurant: s.world.source.Restaurant(rand.IntN(restaurants)), served: true}
		}
		return s.promised(ctx, conn, client, campaigns.Campaign(n, about.restaurant), about)
	})
}

// promised makes the change, waits for its commit and publishes. The work goes on when ctx ends
// between the two: a promise that was made is for the daemon to keep.
func (s *show) promised(ctx context.Context, conn *pgx.Conn, client *kgo.Client, c devstack.Campaign, about promise) error {
	ctx = context.WithoutCancel(ctx)
	sql := "DELETE FROM subscribers_restaurants WHERE client_id = $1 AND restaurant_id = $2"
	if about.served {
		sql = "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ($1, $2)"
	}
	if _, err := conn.Exec(ctx, sql, about.client, c.Restaurant); err != nil {
		return fmt.Errorf("change a subscription: %w", err)
	}
	s.promises.make(c.ID, about)
	if err := client.ProduceSync(ctx, &kgo.Record{Value: c.JSON()}).FirstErr(); err != nil {
		s.promises.withdraw(c.ID)
		return fmt.Errorf("publish a campaign: %w", err)
	}
	return nil
}

// change keeps the table moving: clients subscribe, leave and go to another restaurant.
func (s *show) change(ctx context.Context) error {
	conn, err := s.world.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// "id >= any" finds a row at once, wherever the ids have holes. Newcomers belong to publish.
	const some = "(SELECT id FROM subscribers_restaurants WHERE id >= $1 AND client_id NOT LIKE 'newcomer-%' ORDER BY id LIMIT 1)"
	return every(ctx, s.options.Changes, func(n int) error {
		restaurant := s.world.source.Restaurant(rand.IntN(restaurants))
		row := rand.IntN(subscriptions)
		var err error
		switch n % 4 {
		case 0, 1:
			_, err = conn.Exec(ctx, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ($1, $2)",
				s.world.source.Client(rand.IntN(clients)), restaurant)
		case 2:
			_, err = conn.Exec(ctx, "DELETE FROM subscribers_restaurants WHERE id = "+some, row)
		default:
			_, err = conn.Exec(ctx, "UPDATE subscribers_restaurants SET restaurant_id = $2 WHERE id = "+some, row, restaurant)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("change a subscription: %w", err)
		}
		return nil
	})
}

// every calls do with 0, 1, 2, ... so many times a second until ctx ends or do fails.
func every(ctx context.Context, perSecond float64, do func(n int) error) error {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer ticker.Stop()
	for n := 0; ; n++ {
		if err := do(n); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
