package stream

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"example.com/tiffin/cache"
)

// loaded is an index with so many clients of each restaurant, and some more rows of restaurant and client.
func loaded(t testing.TB, restaurants map[string]int, more ...[2]string) *cache.Index {
	t.Helper()
	index, err := cache.New(cache.Config{Budget: 1 << 20}, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(index.Close)
	load := index.BeginLoad(false)
	for restaurant, clients := range restaurants {
		for i := range clients {
			more = append(more, [2]string{restaurant, fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)})
		}
	}
	for _, row := range more {
		if err := load.Add(0, []byte(row[0]), []byte(row[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := load.Finish(cache.Snapshot{Xmin: 5, Xmax: 5}); err != nil {
		t.Fatal(err)
	}
	return index
}

func recipientsOf(t testing.TB, index *cache.Index, restaurant string) *cache.Recipients {
	t.Helper()
	r, err := index.Lookup(t.Context(), restaurant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	return r
}

// A large campaign among small ones is not sent once more for each of its clients, nor are its rows in memory at once.
//
// Not parallel: it counts what is allocated.
func TestLargeCampaignAmongSmallOnesTakesLittleMemory(t *testing.T) {
	restaurants, b := map[string]int{"large": 300}, newBatch()
	for i := range 10 {
		restaurants[fmt.Sprint(i)] = 1
	}
	index := loaded(t, restaurants)
	for restaurant := range restaurants {
		c := Campaign{RestaurantID: restaurant, Content: "short"}
		if restaurant == "large" {
			c.Content = strings.Repeat("x", 900<<10)
		}
		b.add(&trigger{campaign: c, recipients: recipientsOf(t, index, restaurant)})
	}
	if (&writer{}).prefersCopy(b) {
		t.Error("each row would carry the whole text")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := io.ReadFull(newCopySource(b), make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 8 {
		t.Errorf("the first 64 KiB took %d MiB", mib)
	}
}

// Whether a record may come near what a topic takes is said of the campaign's own clients: a long id elsewhere makes no
// batch wait for the brokers.
func TestLongIDElsewhereMakesNoCampaignBulky(t *testing.T) {
	t.Parallel()
	const id = 6000
	index := loaded(t, map[string]int{"r": 100}, [2]string{"elsewhere", strings.Repeat("z", id)})
	p := planner{cfg: &Config{}, topics: topics{input: topicInfo{name: "campaigns"}, output: topicInfo{name: "deliveries", maxMessage: defaultMaxMessage}}}
	for restaurant, want := range map[string]bool{"r": false, "elsewhere": true} {
		trigger := &trigger{campaign: Campaign{RestaurantID: restaurant, Content: "short"}}
		recipients := recipientsOf(t, index, restaurant)
		if fault := p.checkSize(trigger, recipients); fault != nil {
			t.Error(fault)
		}
		if trigger.bulky != want || recipients.MaxLen() < id {
			t.Errorf("%s: bulky %t, want %t; the longest id anywhere has %d bytes", restaurant, trigger.bulky, want, recipients.MaxLen())
		}
	}
}
