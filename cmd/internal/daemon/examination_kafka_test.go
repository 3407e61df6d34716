package daemon

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// guarded is a real broker that asks who somebody is and what he may: the user has what the README
// names, on topics and a group of the case's own.
type guarded struct {
	*patient
	kafka *devstack.Kafka
	admin *kadm.Client
	acls  map[string]*kadm.ACLBuilder
	name  string
}

func newGuarded(t *testing.T, kafka *devstack.Kafka) *guarded {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.PlainBrokers()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	g := &guarded{patient: newPatient(t, servers.Postgres(t)), kafka: kafka, admin: kadm.NewClient(client), name: servers.Unique(t, "acl")}
	in, out, dead := g.name+"-in", g.name+"-out", g.name+"-dead"
	for _, topic := range []string{in, out, dead} {
		devstacktest.CreateTopic(t, kafka.PlainBrokers(), topic, 1, nil)
	}
	user := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + kafka.Username()).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	}
	g.acls = map[string]*kadm.ACLBuilder{
		"read":        user().Topics(in).Operations(kadm.OpRead),
		"write":       user().Topics(out).Operations(kadm.OpWrite),
		"dead":        user().Topics(dead).Operations(kadm.OpWrite),
		"describe":    user().Topics(in, out, dead).Operations(kadm.OpDescribe, kadm.OpDescribeConfigs),
		"group":       user().Groups(g.name).Operations(kadm.OpRead),
		"transaction": user().TransactionalIDs(g.name).ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpWrite),
		"cluster":     user().Clusters().Operations(kadm.OpDescribeConfigs), // for the doctor only
	}
	for what := range g.acls {
		if results, err := g.admin.CreateACLs(t.Context(), g.acls[what]); err != nil || results[0].Err != nil {
			t.Fatal(what, err, results)
		}
	}
	for variable, value := range map[string]string{
		"BROKERS": strings.Join(kafka.Brokers(), ","), "TLS_ENABLED": "true", "TLS_CA_FILE": kafka.CAFile(),
		"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": kafka.Username(), "SASL_PASSWORD": kafka.Password(),
		"INPUT": in, "OUTPUT": out, "DEAD_LETTER": dead, "GROUP": g.name,
	} {
		g.set("TIFFIN_KAFKA_"+variable, value)
	}
	return g
}

func (g *guarded) revoke(t *testing.T, what string) {
	t.Helper()
	if results, err := g.admin.DeleteACLs(t.Context(), g.acls[what]); err != nil || len(results) == 0 || results[0].Err != nil {
		t.Fatal(what, err, results)
	}
}

// guardedKafka asks everybody but plaintext clients for rights.
func guardedKafka(t *testing.T) *devstack.Kafka {
	t.Helper()
	return devstacktest.StartKafka(t, devstack.KafkaOptions{SASL: true, Detours: 1, Settings: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS",
	}})
}

// Without the right to read the brokers' settings all else is judged.
func TestDoctorNeedsNoRightToTheBrokersSettings(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardedKafka(t)) // of its own: the right is to the cluster, for all
	_, healthy, _ := examine(t, g.environ)
	g.revoke(t, "cluster")
	ailment{warn: "kafka.broker_settings"}.judge(t, g.environ, append(healthy, "kafka.transaction_timeout"))
}

func TestDoctorNamesWhatKafkaRefuses(t *testing.T) {
	t.Parallel()
	kafka := guardedKafka(t)
	foreign := foreignAuthority(t)
	set := func(variable, value string) func(*testing.T, *guarded) {
		return func(_ *testing.T, g *guarded) { g.set("TIFFIN_KAFKA_"+variable, value) }
	}
	revoke := func(what string) func(*testing.T, *guarded) {
		return func(t *testing.T, g *guarded) { t.Helper(); g.revoke(t, what) }
	}
	type disease struct {
		fail, warn string
		breaks     func(*testing.T, *guarded)
	}
	for name, c := range map[string]disease{
		"name unknown":      {fail: "kafka.dns", breaks: set("BROKERS", "nohost.invalid:9092")},
		"nobody listens":    {fail: "kafka.tcp", breaks: set("BROKERS", "127.0.0.1:1")},
		"foreign authority": {fail: "kafka.tls", breaks: set("TLS_CA_FILE", foreign)},
		"wrong password":    {fail: "kafka.login", breaks: set("SASL_PASSWORD", "hunter2")},
		// The seed answers, but the address that it tells its clients does not.
		"advertised": {fail: "kafka.advertised", breaks: func(_ *testing.T, g *guarded) {
			for variable, value := range map[string]string{"BROKERS": kafka.Detour(0)[0].Listener, "TLS_ENABLED": "false", "TLS_CA_FILE": "", "SASL_MECHANISM": "", "SASL_USERNAME": "", "SASL_PASSWORD": ""} {
				g.set("TIFFIN_KAFKA_"+variable, value)
			}
		}},
		"no such topic in":   {fail: "kafka.topic_input", breaks: gone("in")},
		"no such topic out":  {fail: "kafka.topic_output", breaks: gone("out")},
		"no such topic dead": {fail: "kafka.topic_dead_letter", breaks: gone("dead")},
		"may not read":       {fail: "kafka.may_read_input", breaks: revoke("read")},
		"may not write":      {fail: "kafka.may_write_output", breaks: revoke("write")},
		"may not write dead": {fail: "kafka.may_write_dead_letter", breaks: revoke("dead")},
		"no group":           {fail: "kafka.group", breaks: revoke("group")},
		"no transactions":    {fail: "kafka.transactional_id", breaks: revoke("transaction")},
		"small output": {warn: "kafka.message_size", breaks: func(t *testing.T, g *guarded) {
			t.Helper()
			small := "1000"
			if _, err := g.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &small}}, g.name+"-out"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, kafka)
			fails, healthy, lines := examine(t, g.environ)
			if len(fails) > 0 {
				t.Fatalf("all is well, and these fail: %v\n%+v", fails, lines)
			}
			c.breaks(t, g)
			ailment{fail: c.fail, warn: c.warn}.judge(t, g.environ, healthy)
		})
	}
}

func gone(suffix string) func(*testing.T, *guarded) {
	return func(t *testing.T, g *guarded) {
		t.Helper()
		if _, err := g.admin.DeleteTopics(t.Context(), g.name+"-"+suffix); err != nil {
			t.Fatal(err)
		}
	}
}

// foreignAuthority is the certificate of an authority that signed nothing of the others.
func foreignAuthority(t *testing.T) string {
	t.Helper()
	other, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return other.CAFile()
}

// What the brokers' settings and versions forbid, and an address that leads nowhere.
func TestDoctorNamesWhatTheBrokersCannot(t *testing.T) {
	t.Parallel()
	topics := kfake.SeedTopics(1, "campaigns", "deliveries", "campaigns.dlq")
	for fail, options := range map[string][]kfake.Opt{
		// A broker of before Kafka 2.5 cannot fence by the group's generation.
		"kafka.version":             {kfake.MaxVersions(kversion.V2_4_0())},
		"kafka.transaction_timeout": {kfake.BrokerConfigs(map[string]string{"transaction.max.timeout.ms": "30000"})},
	} {
		t.Run(fail, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(append(options, kfake.NumBrokers(1), topics)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			p := newPatient(t, servers.Postgres(t))
			_, healthy, _ := examine(t, p.environ)
			p.set("TIFFIN_KAFKA_BROKERS", strings.Join(cluster.ListenAddrs(), ","))
			ailment{fail: fail}.judge(t, p.environ, healthy)
		})
	}
}
