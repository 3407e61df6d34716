package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/internal/checkup"
)

// Examine checks everything that the daemon will need of the Kafka cluster, one line each, and changes
// nothing: it makes no topic, joins no group and begins no transaction.
func Examine(ctx context.Context, k KafkaConfig, mode Mode, sheet *checkup.Sheet) error {
	k.setDefaults()
	if err := errors.Join(k.validate()...); err != nil {
		return err
	}
	sheet.Area("kafka")
	v := &visit{k: &k, mode: mode, sheet: sheet}
	v.network(ctx)
	cl, err := k.newClient()
	if err == nil {
		v.cl, v.adm = cl, kadm.NewClient(cl)
		defer cl.Close()
	}
	v.cluster(ctx, err)
	v.topics(ctx)
	v.rights(ctx)
	v.limits(ctx)
	return nil
}

// visit is one visit of the doctor to the Kafka cluster.
type visit struct {
	k     *KafkaConfig
	mode  Mode
	sheet *checkup.Sheet
	cl    *kgo.Client
	adm   *kadm.Client

	answer []string // of the seeds
	meta   *kmsg.MetadataResponse
	broker map[string]string // its settings, as far as they may be read
}

func (v *visit) network(ctx context.Context) {
	v.sheet.Check(ctx, "dns", nil, func(ctx context.Context) (f checkup.Finding) {
		f, v.answer = checkup.Resolve(ctx, v.k.Brokers, "kafka.brokers")
		return f
	})
	v.sheet.Check(ctx, "tcp", []string{"dns"}, func(ctx context.Context) (f checkup.Finding) {
		f, v.answer = checkup.Dial(ctx, v.answer, "kafka.brokers")
		return f
	})
	v.sheet.Check(ctx, "tls", []string{"tcp"}, func(ctx context.Context) checkup.Finding { return checkup.AnyOf(v.tls(ctx, v.answer, "kafka.brokers")) })
}

func (v *visit) cluster(ctx context.Context, unmade error) {
	v.sheet.Check(ctx, "login", []string{"tls"}, func(ctx context.Context) checkup.Finding { return v.login(ctx, unmade) })
	v.sheet.Check(ctx, "advertised", []string{"login"}, v.advertised)
	v.sheet.Check(ctx, "version", []string{"advertised"}, func(ctx context.Context) checkup.Finding {
		versions, err := v.adm.ApiVersions(ctx)
		if err != nil {
			return v.fault("ask for the brokers' versions", err)
		}
		for _, b := range versions {
			txn, offered := b.KeyMaxVersion(int16(kmsg.TxnOffsetCommit))
			if v.mode == ExactlyOnce && (!offered || txn < 3) { // KIP-447, Kafka 2.5
				return checkup.Bad(fmt.Sprintf("broker %d is %s: no transactions with fencing by the group's generation", b.NodeID, b.VersionGuess()),
					"Kafka 2.5 or newer, or set delivery.mode: at_least_once")
			}
		}
		var texts []string
		for _, b := range versions.Sorted() {
			texts = append(texts, fmt.Sprintf("broker %d: %s", b.NodeID, b.VersionGuess()))
		}
		return checkup.Good(strings.Join(texts, ", "))
	})
}

// login asks for the metadata of the topics, which needs SASL to have passed but no right.
func (v *visit) login(ctx context.Context, unmade error) checkup.Finding {
	if unmade != nil {
		return checkup.Bad(unmade.Error(), "correct the settings kafka.tls and kafka.sasl")
	}
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, name := range []string{v.k.Input, v.k.Output, v.k.DeadLetter} {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
	var err error
	v.meta, err = req.RequestWith(ctx, v.cl)
	if err != nil {
		return v.refused(ctx, err)
	}
	if v.k.SASL.Mechanism == "" {
		return checkup.Good("no SASL")
	}
	return checkup.Good(v.k.SASL.Mechanism + " as " + v.k.SASL.Username)
}

// advertised judges whether the addresses that the brokers tell their clients can be reached from here:
// the seeds may, and they not.
func (v *visit) advertised(ctx context.Context) checkup.Finding {
	var addresses []string
	for _, b := range v.meta.Brokers {
		addresses = append(addresses, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	const setting = "advertised.listeners of the broker"
	for _, judge := range []func(context.Context, []string, string) (checkup.Finding, []string){checkup.Resolve, checkup.Dial} {
		if f, _ := judge(ctx, addresses, setting); f.Verdict != checkup.OK { // each leads partitions: no other can stand in
			return checkup.Bad(f.Text, f.Fix)
		}
	}
	if v.k.TLS.Enabled {
		if f := checkup.AllOf(v.tls(ctx, addresses, setting)); f.Verdict == checkup.Fail {
			return f
		}
	}
	return checkup.Good(strings.Join(addresses, ", "))
}

func (v *visit) fault(what string, err error) checkup.Finding {
	fix := kafkaRemedy(err)
	if fix == "" {
		fix = "see the brokers' logs; the same by their own tool: " + v.command("broker-api-versions")
	}
	return checkup.Bad(what+": "+err.Error(), fix)
}

// patiently repeats a question whose answer will come by itself: on a new cluster the first question
// for a coordinator makes the topic that it keeps its state in, and the next seed is another one.
func patiently(ctx context.Context, ask func() error) error {
	pause := time.NewTicker(patientlyEvery)
	defer pause.Stop()
	for {
		err := ask()
		if !kerr.IsRetriable(err) && !undialled(err) {
			return err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return err
		}
	}
}

const patientlyEvery = 200 * time.Millisecond

func (v *visit) topics(ctx context.Context) {
	v.broker = map[string]string{}
	v.sheet.Check(ctx, "broker_settings", []string{"advertised"}, func(ctx context.Context) checkup.Finding {
		id := strconv.Itoa(int(v.meta.Brokers[0].NodeID))
		configs, err := v.adm.DescribeBrokerConfigs(ctx, v.meta.Brokers[0].NodeID)
		if err == nil {
			var rc kadm.ResourceConfig
			if rc, err = configs.On(id, nil); err == nil {
				err = rc.Err
			}
			for _, c := range rc.Configs {
				v.broker[c.Key] = c.MaybeValue()
			}
		}
		if err != nil {
			return checkup.Odd("may not be read, so limits of the brokers are not judged: "+err.Error(), v.grant("DescribeConfigs", "--cluster")+" # for the doctor only")
		}
		return checkup.Good("read from broker " + id)
	})
	for _, t := range []struct{ what, name, operation string }{{"input", v.k.Input, "Read"}, {"output", v.k.Output, "Write"}, {"dead_letter", v.k.DeadLetter, "Write"}} {
		v.sheet.Check(ctx, "topic_"+t.what, []string{"login"}, func(ctx context.Context) checkup.Finding { return v.topic(ctx, t.name, t.operation) })
	}
}

// metadata is what the brokers told of a topic.
func (v *visit) metadata(name string) *kmsg.MetadataResponseTopic {
	i := slices.IndexFunc(v.meta.Topics, func(t kmsg.MetadataResponseTopic) bool { return t.Topic != nil && *t.Topic == name })
	if i < 0 {
		return &kmsg.MetadataResponseTopic{ErrorCode: kerr.UnknownTopicOrPartition.Code}
	}
	return &v.meta.Topics[i]
}

// topic judges a topic on which operation is needed, which implies Describe.
func (v *visit) topic(ctx context.Context, name, operation string) checkup.Finding {
	t := v.metadata(name)
	create := v.create(name)
	creates, known := v.broker["auto.create.topics.enable"]
	switch err := kerr.ErrorForCode(t.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition) && creates == "true":
		return checkup.Odd("topic "+name+" does not exist; the brokers will create it, with one partition unless num.partitions says otherwise", create)
	case errors.Is(err, kerr.UnknownTopicOrPartition) && !known:
		return checkup.Odd("topic "+name+" does not exist; whether the brokers will create it may not be read", create)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return checkup.Bad("topic "+name+" does not exist", create)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return checkup.Bad("topic "+name+" may not be described, or does not exist", v.grant(operation, "--topic", name)+" # and where there is no such topic: "+create)
	case err != nil:
		return v.fault("topic "+name, err)
	}
	if leaderless(t) != nil {
		return checkup.Bad(leaderless(t).Error(), "bring its brokers back: "+v.command("topics", "--describe", "--topic", name))
	}
	if f := v.inSync(ctx, t); name != v.k.Input && f.Verdict == checkup.Fail {
		return f
	}
	text := fmt.Sprintf("%s, %d partitions, %d replicas", name, len(t.Partitions), len(t.Partitions[0].Replicas))
	if len(t.Partitions[0].Replicas) == 1 && len(v.meta.Brokers) > 1 {
		return checkup.Odd(text+": one broker's disk is all that holds it", v.spread(t))
	}
	return checkup.Good(text)
}

// inSync judges whether the brokers would take a record: with fewer replicas in sync than
// min.insync.replicas they refuse, and the client tries again in silence.
func (v *visit) inSync(ctx context.Context, t *kmsg.MetadataResponseTopic) checkup.Finding {
	least := slices.MinFunc(t.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return len(a.ISR) - len(b.ISR) })
	need, err := minInSync(ctx, v.cl, *t.Topic)
	if err != nil || len(least.ISR) >= need {
		return checkup.Good("") // what may not be read is said by message_size
	}
	text := fmt.Sprintf("topic %s: partition %d has %d replicas in sync, min.insync.replicas is %d", *t.Topic, least.Partition, len(least.ISR), need)
	if len(least.Replicas) < need {
		return checkup.Bad(text+fmt.Sprintf(", of %d that there are", len(least.Replicas)),
			v.command("configs", "--alter", "--topic", *t.Topic, "--add-config", fmt.Sprintf("min.insync.replicas=%d", len(least.Replicas)))+" # or give it more replicas")
	}
	return checkup.Bad(text, "bring the missing brokers back: "+v.command("topics", "--describe", "--topic", *t.Topic))
}

// The bits of authorized operations (KIP-430; AclOperation's codes).
const (
	opRead  = 3
	opWrite = 4
)

// unknownOperations is what a broker says that has no authorizer, or is too old to tell.
const unknownOperations = -2147483648

func allowed(operations int32, bit int) bool {
	return operations == unknownOperations || operations&(1<<bit) != 0
}

func (v *visit) rights(ctx context.Context) {
	v.right(ctx, "read", "input", v.k.Input, opRead, "Read")
	v.right(ctx, "write", "output", v.k.Output, opWrite, "Write")
	v.right(ctx, "write", "dead_letter", v.k.DeadLetter, opWrite, "Write")
	v.sheet.Check(ctx, "group", []string{"advertised"}, v.group)
	if v.mode == ExactlyOnce {
		v.sheet.Check(ctx, "transactional_id", []string{"version"}, v.transactionalID)
	}
}

func (v *visit) right(ctx context.Context, verb, what, name string, bit int, operation string) {
	v.sheet.Check(ctx, "may_"+verb+"_"+what, []string{"topic_" + what}, func(context.Context) checkup.Finding {
		t := v.metadata(name)
		if t.ErrorCode != 0 {
			return checkup.Odd("not known before topic "+name+" exists", v.grant(operation, "--topic", name))
		}
		if !allowed(t.AuthorizedOperations, bit) {
			return checkup.Bad("no right to "+verb+" topic "+name, v.grant(operation, "--topic", name))
		}
		return checkup.Good("topic " + name)
	})
}

// group judges whether the group may be read, and is of consumers.
func (v *visit) group(ctx context.Context) checkup.Finding {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = []string{v.k.Group}, true
	var resp *kmsg.DescribeGroupsResponse
	err := patiently(ctx, func() (err error) {
		if resp, err = req.RequestWith(ctx, v.cl); err == nil && len(resp.Groups) == 1 {
			err = kerr.ErrorForCode(resp.Groups[0].ErrorCode)
		}
		return err
	})
	read := v.grant("Read", "--group", v.k.Group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound): // since version 6 of the request: nobody has joined yet
		return checkup.Good(v.k.Group + " is new")
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return checkup.Bad("no right to group "+v.k.Group, read)
	case err != nil:
		return v.fault("group "+v.k.Group, err)
	}
	g := resp.Groups[0]
	switch {
	case !allowed(g.AuthorizedOperations, opRead):
		return checkup.Bad("no right to read group "+v.k.Group, read)
	case g.ProtocolType != "" && g.ProtocolType != "consumer":
		return checkup.Bad(fmt.Sprintf("group %s is of another kind: %s", v.k.Group, g.ProtocolType), "name another group in kafka.group")
	}
	return checkup.Good(fmt.Sprintf("%s, state %s, %d members", v.k.Group, strings.ToLower(g.State), len(g.Members)))
}

// noProducer is the id of no producer: the brokers give them from 0.
const noProducer = -1

// transactionalID asks for the abort of a transaction that nobody has begun, by an id that no process
// forms. The brokers look for Write on the id first (KafkaApis.handleEndTxnRequest), then for the
// producer, and change nothing. To ask for the state of the id would need Describe only.
func (v *visit) transactionalID(ctx context.Context) checkup.Finding {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = v.k.Group+"."+v.k.Process+".doctor", noProducer, noProducer
	err := patiently(ctx, func() error {
		resp, err := req.RequestWith(ctx, v.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		return err
	})
	switch {
	case errors.Is(err, kerr.InvalidProducerIDMapping):
		return checkup.Good("ids with the prefix " + v.k.Group + " may be used")
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return checkup.Bad("no right to write by transactional ids with the prefix "+v.k.Group,
			v.grant("Write", "--transactional-id", v.k.Group, "--resource-pattern-type", "prefixed"))
	case err == nil:
		err = errors.New("the broker takes the end of a transaction that nobody began")
	}
	return v.fault("transactional id "+req.TransactionalID, err)
}

func (v *visit) limits(ctx context.Context) {
	if v.mode == ExactlyOnce {
		v.sheet.Check(ctx, "transaction_timeout", []string{"broker_settings"}, func(context.Context) checkup.Finding {
			longest, known := v.number("transaction.max.timeout.ms")
			text := fmt.Sprintf("transaction.max.timeout.ms is %d", longest)
			switch {
			case !known:
				return checkup.Odd("transaction.max.timeout.ms is not known", v.limit("transaction.max.timeout.ms")+fmt.Sprintf(" # %d are needed", transactionTimeout.Milliseconds()))
			case longest < transactionTimeout.Milliseconds():
				return checkup.Bad(text, timeoutFix())
			}
			return checkup.Good(text)
		})
	}
	v.sheet.Check(ctx, "session_timeout", []string{"broker_settings"}, func(context.Context) checkup.Finding { return v.sessionTimeout() })
	v.sheet.Check(ctx, "message_size", []string{"topic_input", "topic_output", "topic_dead_letter"}, v.sizes)
}

// sessionTimeout judges whether the group takes a member with kafka.session_timeout.
func (v *visit) sessionTimeout() checkup.Finding {
	asked := v.k.SessionTimeout.Milliseconds()
	least, lower := v.number("group.min.session.timeout.ms")
	most, upper := v.number("group.max.session.timeout.ms")
	text := fmt.Sprintf("kafka.session_timeout is %s, the brokers take %d to %d ms", v.k.SessionTimeout, least, most)
	switch {
	case !lower || !upper:
		return checkup.Odd("group.min.session.timeout.ms and group.max.session.timeout.ms are not known", v.limit("group.*.session.timeout.ms")+fmt.Sprintf(" # %d must be between them", asked))
	case asked < least || asked > most:
		return checkup.Bad(text, "choose kafka.session_timeout between them, or group.min.session.timeout.ms and group.max.session.timeout.ms in the brokers' server.properties, and restart them")
	}
	return checkup.Good(text)
}

// number is one of the broker's settings, as far as it may be read.
func (v *visit) number(name string) (n int64, known bool) {
	n, err := strconv.ParseInt(v.broker[name], 10, 64)
	return n, err == nil
}

// deliveryRoom is what a delivery has more than its campaign, for a client id of a UUID's size: the id as
// key and in the value, the time, the header, and what the format adds.
const deliveryRoom = 512

// sizes judges whether what fits into the input fits into the outputs.
func (v *visit) sizes(ctx context.Context) checkup.Finding {
	names := []string{v.k.Input, v.k.Output, v.k.DeadLetter}
	for _, name := range names {
		if v.metadata(name).ErrorCode != 0 {
			return checkup.Odd("not known before topic "+name+" exists", v.create(name))
		}
	}
	sizes, err := messageLimits(ctx, v.cl, names...)
	if err != nil {
		return checkup.Odd("the topics' settings may not be read, so max.message.bytes is taken for the default: "+err.Error(), v.grant("DescribeConfigs", "--topic", names[0], "--topic", names[1], "--topic", names[2]))
	}
	text := fmt.Sprintf("max.message.bytes: input %d, output %d, dead letters %d", sizes[0], sizes[1], sizes[2])
	for i, name := range names[1:] {
		if want := sizes[0] + int32((1-i)*deliveryRoom); sizes[i+1] < want {
			return checkup.Odd(text+": a campaign may be too large for "+name,
				v.command("configs", "--alter", "--topic", name, "--add-config", fmt.Sprintf("max.message.bytes=%d", want)))
		}
	}
	return checkup.Good(text)
}
