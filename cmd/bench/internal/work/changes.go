package work

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// Changes subscribes and unsubscribes clients of restaurants that no campaign is of, each in a
// transaction of its own, at a fixed rate, until Stop.
type Changes struct {
	begun time.Time
	made  atomic.Int64
	stop  context.CancelFunc
	done  sync.WaitGroup
	fault error // of the first connection that failed
	once  sync.Once
}

// changers share the rate: a commit waits for the disk.
const changers = 4

// StartChanges connects and begins.
func StartChanges(ctx context.Context, stage *testbed.Stage, perSecond int) (*Changes, error) {
	running, stop := context.WithCancel(ctx)
	c := &Changes{begun: time.Now(), stop: stop}
	for n := range changers {
		conn, err := pgx.Connect(ctx, stage.SourceDSN)
		if err != nil {
			stop()
			c.done.Wait()
			return nil, fmt.Errorf("connect to change subscriptions: %w", err)
		}
		c.done.Go(func() {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			if err := c.change(running, conn, n, changers*time.Second/time.Duration(perSecond)); err != nil && running.Err() == nil {
				c.once.Do(func() { c.fault = err })
			}
		})
	}
	return c, nil
}

// Stop ends the changes and returns how many a second were made.
func (c *Changes) Stop() (perSecond float64, err error) {
	took := time.Since(c.begun)
	c.stop()
	c.done.Wait()
	return float64(c.made.Load()) / took.Seconds(), c.fault
}

// change makes up for lateness: the rate is of the whole time. Rows are changed by id, because the
// table has no index on anything else.
func (c *Changes) change(ctx context.Context, conn *pgx.Conn, changer int, every time.Duration) error {
	var rows []int64 // that were added, oldest first
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		timer.Reset(time.Until(c.begun.Add(time.Duration(n) * every)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if err := changeOne(ctx, conn, "changing "+strconv.Itoa(changer), n, &rows); err != nil {
			return fmt.Errorf("change a subscription: %w", err)
		}
		c.made.Add(1)
	}
}

// changeOne subscribes a client, makes it another one, or unsubscribes the oldest.
func changeOne(ctx context.Context, conn *pgx.Conn, restaurant string, n int, rows *[]int64) error {
	const kept = 100
	client := strconv.Itoa(n)
	switch {
	case n%3 == 1:
		_, err := conn.Exec(ctx, "UPDATE subscribers_restaurants SET client_id = $2 WHERE id = $1", (*rows)[len(*rows)-1], client)
		return err
	case n%3 == 2 && len(*rows) > kept:
		_, err := conn.Exec(ctx, "DELETE FROM subscribers_restaurants WHERE id = $1", (*rows)[0])
		*rows = (*rows)[1:]
		return err
	default:
		var id int64
		err := conn.QueryRow(ctx, "INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ($1, $2) RETURNING id", restaurant, client).Scan(&id)
		*rows = append(*rows, id)
		return err
	}
}
