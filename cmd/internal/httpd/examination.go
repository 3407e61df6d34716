package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"example.com/tiffin/internal/checkup"
)

// Examine judges whether the endpoint could listen at the address (http.listen), which it takes for a
// moment; "off" and "" are no address.
func Examine(ctx context.Context, listen string, sheet *checkup.Sheet) {
	sheet.Area("http")
	sheet.Check(ctx, "listen", nil, func(ctx context.Context) checkup.Finding {
		if listen == "" {
			return checkup.Good("no endpoint: http.listen is off")
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
		switch {
		case err == nil:
			_ = l.Close() // only that it could be had counts
			return checkup.Good(listen + " is free")
		case daemonAt(ctx, listen):
			return checkup.Good(listen + " is taken by a daemon that runs")
		}
		return checkup.Bad(fmt.Sprintf("the endpoint cannot listen: %v", err), "set http.listen to a free address, or to off; who has it: ss -ltnp")
	})
}

// daemonAt reports whether whoever listens there answers probes as a daemon does.
func daemonAt(ctx context.Context, listen string) bool {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/livez", nil)
	if err != nil {
		return false
	}
	transport := &http.Transport{} // no proxy: it is this machine
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	var told map[string]any
	err = json.NewDecoder(http.MaxBytesReader(nil, response.Body, 1<<20)).Decode(&told)
	_, ready := told["ready"].(bool)
	_, reasons := told["reasons"].([]any)
	return err == nil && ready && reasons
}
