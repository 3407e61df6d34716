package stream

import "github.com/twmb/franz-go/pkg/kgo"

// ShareBy has an engine that does not run yet share partitions out in another way; all of a group must.
func (e *Engine) ShareBy(b kgo.GroupBalancer) { e.balancer = b }
