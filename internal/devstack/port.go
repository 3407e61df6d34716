package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// The ports of servers lie below the range from which Linux takes the ports of outgoing connections
// (net.ipv4.ip_local_port_range, 32768 and up): otherwise a client's connection could sit on a
// server's port while that server is restarted.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// A server listens some time after its port was chosen: seconds, for a JVM. So that nobody else is given
// the port meanwhile, each process has a stretch of the range, by its id, and hands it out in turn; two
// processes that share a stretch begin at different places of it.
const (
	stretches = 24
	stretch   = (highestPort - lowestPort) / stretches
)

// handed is how many ports this process has given out.
var handed atomic.Uint32

func nextPort() int {
	const apart = 16 // more ports than most processes take
	pid := os.Getpid()
	return lowestPort + pid%stretches*stretch + (pid/stretches*apart+int(handed.Add(1)))%stretch
}

// freePorts returns n different ports of 127.0.0.1 on which nothing listens.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	var faults []error
	for range 100 * n {
		port := nextPort()
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", loopback(port))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		defer func() { _ = l.Close() }() // held until all are found, so that they differ
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports of 127.0.0.1 in %d-%d: %w", n, lowestPort, highestPort, errors.Join(faults...))
}

// FreeAddress is a host:port of this machine on which nobody listens, and which this process is not given
// again: for a server that is started elsewhere.
func FreeAddress(ctx context.Context) (string, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return "", err
	}
	return loopback(ports[0]), nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
