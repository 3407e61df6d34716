package daemon

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/internal/manual"
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
	alter("in", "max.message.bytes", "900000")(t, g) // the others take what a delivery has more
	user := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + kafka.Username()).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	}
	g.acls = map[string]*kadm.ACLBuilder{
		"read":        user().Topics(in).Operations(kadm.OpRead),
		"write":       user().Topics(out).Operations(kadm.OpWrite),
		"dead":        user().Topics(dead).Operations(kadm.OpWrite),
		"describe":    user().Topics(in, out, dead).Operations(kadm.OpDescribe),
		"configs":     user().Topics(in, out, dead).Operations(kadm.OpDescribeConfigs),
		"group":       user().Groups(g.name).Operations(kadm.OpRead),
		"transaction": user().TransactionalIDs(g.name).ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpWrite),
		"cluster":     user().Clusters().Operations(kadm.OpDescribeConfigs), // for the doctor only
	}
	for _, acl := range g.acls {
		g.grant(t, acl)
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

func (g *guarded) grant(t *testing.T, acl *kadm.ACLBuilder) {
	t.Helper()
	if results, err := g.admin.CreateACLs(t.Context(), acl); err != nil || results[0].Err != nil {
		t.Fatal(err, results)
	}
}

func (g *guarded) revoke(t *testing.T, what string) {
	t.Helper()
	if results, err := g.admin.DeleteACLs(t.Context(), g.acls[what]); err != nil || len(results) == 0 || results[0].Err != nil {
		t.Fatal(what, err, results)
	}
}

// guardedKafka asks everybody but plaintext clients for rights.
func guardedKafka(t *testing.T, settings map[string]string) *devstack.Kafka {
	t.Helper()
	all := map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS;User:admin",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL,DETOUR0:PLAINTEXT,DETOUR1:SSL",
	}
	maps.Copy(all, settings)
	return devstacktest.StartKafka(t, devstack.KafkaOptions{SASL: true, Detours: 2, Settings: all})
}

// Without the right to read the brokers' settings all else is judged.
func TestDoctorNeedsNoRightToTheBrokersSettings(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardedKafka(t, nil)) // of its own: the right is to the cluster, for all
	_, healthy, _ := examine(t, g.environ)
	g.revoke(t, "cluster")
	unknown := append(healthy, "kafka.transaction_timeout", "kafka.session_timeout")
	ailment{warn: "kafka.broker_settings"}.judge(t, g.environ, unknown)
	// Whether the brokers would make a missing topic is one of these settings; what is to be known of
	// the topic itself is not known either.
	gone("out")(t, g)
	ailment{warn: "kafka.topic_output"}.judge(t, g.environ, append(unknown, "kafka.broker_settings", "kafka.may_write_output", "kafka.message_size"))
}

// A real broker that allows transactions of half a minute only, and short sessions.
func TestDoctorNamesTheBrokersLimits(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, guardedKafka(t, map[string]string{"transaction.max.timeout.ms": "30000", "group.max.session.timeout.ms": "60000"}))
	_, healthy, _ := examine(t, g.environ)
	ailment{fail: "kafka.transaction_timeout"}.judge(t, g.environ, healthy)
	g.set("TIFFIN_DELIVERY_MODE", "at_least_once") // needs no transactions
	ailment{}.judge(t, g.environ, healthy)
	g.set("TIFFIN_KAFKA_SESSION_TIMEOUT", "61s")
	ailment{fail: "kafka.session_timeout"}.judge(t, g.environ, healthy)
}

func TestDoctorNamesWhatKafkaRefuses(t *testing.T) {
	t.Parallel()
	kafka := guardedKafka(t, nil)
	set := func(variable, value string) func(*testing.T, *guarded) {
		return func(_ *testing.T, g *guarded) { g.set("TIFFIN_KAFKA_"+variable, value) }
	}
	revoke := func(what ...string) func(*testing.T, *guarded) {
		return func(t *testing.T, g *guarded) {
			t.Helper()
			for _, w := range what {
				g.revoke(t, w)
			}
		}
	}
	replace := func(what string, by kadm.ACLOperation) func(*testing.T, *guarded) {
		return func(t *testing.T, g *guarded) { t.Helper(); g.revoke(t, what); g.grant(t, g.acls[what].Operations(by)) }
	}
	tools := kafkaTools(t, kafka)
	type disease struct {
		fail, warn string
		fix        string // what it must say
		cures      bool
		breaks     func(*testing.T, *guarded)
	}
	for name, c := range map[string]disease{
		"name unknown":     {fail: "kafka.dns", breaks: set("BROKERS", "nohost.invalid:9092")},
		"nobody listens":   {fail: "kafka.tcp", breaks: set("BROKERS", "127.0.0.1:1")},
		"one seed away":    {warn: "kafka.tcp", breaks: set("BROKERS", "127.0.0.1:1,"+kafka.Brokers()[0])},
		"one seed unknown": {warn: "kafka.dns", breaks: set("BROKERS", kafka.Brokers()[0]+",nohost.invalid:1")},
		"session too long": {fail: "kafka.session_timeout", breaks: set("SESSION_TIMEOUT", "31m")},
		"too few replicas": {fail: "kafka.topic_output", cures: true, breaks: alter("out", "min.insync.replicas", "2")},
		"too few for dead": {fail: "kafka.topic_dead_letter", breaks: alter("dead", "min.insync.replicas", "2")},
		// The seed answers, but the address that it tells its clients does not.
		"advertised": {fail: "kafka.advertised", breaks: func(_ *testing.T, g *guarded) {
			for variable, value := range map[string]string{"BROKERS": kafka.Detour(0)[0].Listener, "TLS_ENABLED": "false", "TLS_CA_FILE": "", "SASL_MECHANISM": "", "SASL_USERNAME": "", "SASL_PASSWORD": ""} {
				g.set("TIFFIN_KAFKA_"+variable, value)
			}
		}},
		// It does, and is somebody else.
		"advertised impostor": {fail: "kafka.advertised", breaks: func(t *testing.T, g *guarded) {
			t.Helper()
			impostor := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(impostor.Close)
			devstacktest.OpenRouteFrom(t, kafka.Detour(1)[0].Advertised, impostor.Listener.Addr().String())
			for variable, value := range map[string]string{"BROKERS": kafka.Detour(1)[0].Listener, "SASL_MECHANISM": "", "SASL_USERNAME": "", "SASL_PASSWORD": ""} {
				g.set("TIFFIN_KAFKA_"+variable, value)
			}
		}},
		"no such topic in":   {fail: "kafka.topic_input", breaks: gone("in")},
		"no such topic out":  {fail: "kafka.topic_output", cures: true, breaks: gone("out")},
		"no such topic dead": {fail: "kafka.topic_dead_letter", breaks: gone("dead")},
		"may not see input":  {fail: "kafka.topic_input", fix: " # and where there is no such topic: kafka-topics.sh ", cures: true, breaks: revoke("read", "describe")}, // to write the others is to see them
		"may not see limits": {warn: "kafka.message_size", cures: true, breaks: revoke("configs")},
		"may not read":       {fail: "kafka.may_read_input", breaks: revoke("read")},
		"may not write":      {fail: "kafka.may_write_output", breaks: revoke("write")},
		"may not write dead": {fail: "kafka.may_write_dead_letter", breaks: revoke("dead")},
		"no group":           {fail: "kafka.group", cures: true, breaks: revoke("group")},
		"no transactions":    {fail: "kafka.transactional_id", breaks: revoke("transaction")},
		"transactions shown": {fail: "kafka.transactional_id", cures: true, breaks: replace("transaction", kadm.OpDescribe)}, // to write takes more
		"small output":       {warn: "kafka.message_size", cures: true, breaks: alter("out", "max.message.bytes", "900511")}, // no room for the client
		"small dead":         {warn: "kafka.message_size", breaks: alter("dead", "max.message.bytes", "899999")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, kafka)
			fails, healthy, lines := examine(t, g.environ)
			if len(fails) > 0 {
				t.Fatalf("all is well, and these fail: %v\n%+v", fails, lines)
			}
			c.breaks(t, g)
			line := ailment{fail: c.fail, warn: c.warn, fix: c.fix}.judge(t, g.environ, healthy)
			if c.cures {
				g.run(t, tools, line.Fix)
				ailment{}.judge(t, g.environ, healthy)
			}
		})
	}
	t.Run("a certificate's rights", func(t *testing.T) { t.Parallel(); newGuarded(t, kafka).grantedByTheDoctor(t, tools) })
}

// grantedByTheDoctor has somebody whom the brokers know by his certificate do as the doctor says, until
// all is well.
func (g *guarded) grantedByTheDoctor(t *testing.T, tools string) {
	t.Helper()
	for variable, value := range map[string]string{
		"BROKERS": strings.Join(g.kafka.MutualTLSBrokers(), ","), "TLS_CERT_FILE": g.kafka.ClientCertFile(), "TLS_KEY_FILE": g.kafka.ClientKeyFile(),
		"SASL_MECHANISM": "", "SASL_USERNAME": "", "SASL_PASSWORD": "",
	} {
		g.set("TIFFIN_KAFKA_"+variable, value)
	}
	for _, well := range []bool{false, false, true} { // the second time warnings of what was not known at first
		fails, warns, lines := examine(t, g.environ)
		warns = slices.DeleteFunc(warns, func(w string) bool { return !strings.HasPrefix(w, "kafka.") || w == "kafka.tls" })
		if well != (len(fails)+len(warns) == 0) {
			t.Errorf("fails %v, warns %v: all is well should be %t\n%+v", fails, warns, well, lines)
		}
		for _, l := range lines {
			if strings.HasPrefix(l.Fix, "kafka-acls.sh ") {
				g.run(t, tools, l.Fix)
			}
		}
	}
}

// kafkaTools is a directory with those of Kafka's tools that the doctor names, and with the file of
// docs/security.md that they log in with.
func kafkaTools(t *testing.T, kafka *devstack.Kafka) string {
	t.Helper()
	dir := t.TempDir()
	login := strings.ReplaceAll(manual.Named(t, "docs/security.md", "properties admin"), "/etc/tiffin/kafka-ca.pem", kafka.CAFile())
	if err := errors.Join(kafka.WriteScripts(dir), os.WriteFile(filepath.Join(dir, "admin.properties"), []byte(login), 0o600)); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.PlainBrokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	users := []kadm.UpsertSCRAM{{User: "admin", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "choose a third"}}
	if altered, err := kadm.NewClient(client).AlterUserSCRAMs(t.Context(), nil, users); err != nil || altered.Error() != nil {
		t.Fatal(err, altered)
	}
	return dir
}

// run runs what the doctor says as it stands, as somebody who may. His file is for the listener with logins,
// not for that of certificates.
func (g *guarded) run(t *testing.T, tools, fix string) {
	t.Helper()
	fix = strings.ReplaceAll(fix, g.kafka.MutualTLSBrokers()[0], g.kafka.Brokers()[0])
	cmd := exec.CommandContext(t.Context(), "sh", "-c", fix)
	cmd.Dir, cmd.Env = tools, []string{"PATH=" + tools + ":" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", fix, err, out)
	}
}

func alter(suffix, name, value string) func(*testing.T, *guarded) {
	return func(t *testing.T, g *guarded) {
		t.Helper()
		results, err := g.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, g.name+"-"+suffix)
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
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

// A broker of before Kafka 2.5 cannot fence by the group's generation.
func TestDoctorNamesABrokerThatIsTooOld(t *testing.T) {
	t.Parallel()
	old := devstacktest.StartKafka(t, devstack.KafkaOptions{Version: "2.4.1"})
	for _, topic := range []string{"campaigns", "deliveries", "campaigns.dlq"} {
		devstacktest.CreateTopic(t, old.PlainBrokers(), topic, 1, nil)
	}
	p := newPatient(t, servers.Postgres(t))
	_, healthy, _ := examine(t, p.environ)
	p.set("TIFFIN_KAFKA_BROKERS", strings.Join(old.PlainBrokers(), ","))
	ailment{fail: "kafka.version"}.judge(t, p.environ, healthy)
}
