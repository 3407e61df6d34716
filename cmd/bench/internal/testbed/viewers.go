package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Viewers look at the daemon's live page as a browser on the daemon's machine does: each asks for the document
// once, then follows its events until Stop, and asks for the last campaigns every listEvery.
type Viewers struct {
	stop   context.CancelFunc
	client *http.Client
	begun  sync.WaitGroup // each has had an event, or has failed
	done   sync.WaitGroup
	mu     sync.Mutex
	events int
	faults []error
}

// listEvery is the page's own (livepage/web/campaigns.js), while messages are being handled.
const listEvery = 2 * time.Second

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
	var listed time.Time
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "data:") {
			continue
		}
		v.mu.Lock()
		v.events++
		v.mu.Unlock()
		told()
		if time.Since(listed) >= listEvery {
			listed = time.Now()
			if err := v.list(ctx, url); err != nil {
				return err
			}
		}
	}
	return errors.Join(errors.New("the live page's events ended"), lines.Err())
}

// list reads the last campaigns.
func (v *Viewers) list(ctx context.Context, url string) error {
	list, err := v.open(ctx, url+"/live/campaigns")
	if err != nil {
		return err
	}
	defer func() { _ = list.Body.Close() }()
	_, err = io.Copy(io.Discard, list.Body)
	return err
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
