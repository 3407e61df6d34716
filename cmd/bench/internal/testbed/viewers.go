package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Viewers look at the daemon's live page: each asks for the document once and then follows its
// events until Stop.
type Viewers struct {
	stop   context.CancelFunc
	client *http.Client
	begun  sync.WaitGroup // each has had an event, or has failed
	done   sync.WaitGroup
	mu     sync.Mutex
	events int
	faults []error
}

// View lets n viewers look from now on. It does not wait for them.
func (t *Tiffin) View(ctx context.Context, n int) *Viewers {
	ctx, stop := context.WithCancel(ctx)
	v := &Viewers{stop: stop, client: &http.Client{Transport: &http.Transport{}}}
	for range n {
		v.begun.Add(1)
		v.done.Go(func() {
			told := sync.OnceFunc(v.begun.Done)
			defer told()
			if err := v.follow(ctx, t.url, told); err != nil && ctx.Err() == nil {
				v.mu.Lock()
				defer v.mu.Unlock()
				v.faults = append(v.faults, err)
			}
		})
	}
	return v
}

// Stop waits until each viewer has had an event, ends the looking, and returns how many events all of
// them had. One that was refused, or lost the page, is a fault.
func (v *Viewers) Stop() (events int, err error) {
	v.begun.Wait()
	v.stop()
	v.done.Wait()
	v.client.CloseIdleConnections()
	return v.events, errors.Join(v.faults...)
}

func (v *Viewers) follow(ctx context.Context, url string, told func()) error {
	document, err := v.open(ctx, url+"/")
	if err != nil {
		return err
	}
	_ = document.Body.Close()
	stream, err := v.open(ctx, url+"/live/events")
	if err != nil {
		return err
	}
	defer func() { _ = stream.Body.Close() }()
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			v.mu.Lock()
			v.events++
			v.mu.Unlock()
			told()
		}
	}
	return errors.Join(errors.New("the live page's events ended"), lines.Err())
}

func (v *Viewers) open(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("look at the live page: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("look at the live page: %s answers %s", url, response.Status)
	}
	return response, nil
}
