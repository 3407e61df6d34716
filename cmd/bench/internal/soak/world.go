package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// The names that a run uses.
const (
	sourceDatabase   = "source"
	feedbackDatabase = "feedback"
	inputTopic       = "campaigns"
	outputTopic      = "deliveries"
	deadLetterTopic  = "campaigns.dlq"
	group            = "soak"
	seen             = "seen" // what the feedback table's other users write into it
)

const (
	daemons    = 3
	brokers    = 3
	partitions = 6 // of the input: two for each daemon
	// sessionTimeout is short, so that a daemon is often taken for dead.
	sessionTimeout = "6s"
	// transactionRecords is low, so that campaigns of several transactions are usual.
	transactionRecords = 400
)

// world is every server, the connections and the daemons.
type world struct {
	dir      string
	source   *devstack.Postgres
	feedback *devstack.Postgres
	kafka    *devstack.Kafka
	network  *network
	daemons  []*daemon
	logs     []*os.File
}

// newWorld starts the servers and makes what the daemons need; it starts no daemon.
func newWorld(ctx context.Context, dir, program string, fail func(error)) (w *world, err error) {
	w = &world{dir: dir, network: newNetwork()}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
			w = nil
		}
	}()
	if err := w.startServers(ctx); err != nil {
		return w, err
	}
	if err := w.createTopics(ctx); err != nil {
		return w, err
	}
	if err := w.createSource(ctx); err != nil {
		return w, err
	}
	for n := range daemons {
		if err := w.addDaemon(n, program, fail); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) logFile(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(w.dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	w.logs = append(w.logs, f)
	return f, nil
}

func (w *world) startServers(ctx context.Context) error {
	for database, server := range map[string]**devstack.Postgres{sourceDatabase: &w.source, feedbackDatabase: &w.feedback} {
		log, err := w.logFile(database)
		if err != nil {
			return err
		}
		*server, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{
			Dir: w.dir, Durable: true, Log: log,
			// The connections of a silent daemon do not outlive it for long.
			Settings: map[string]string{"wal_sender_timeout": "10s", "checkpoint_timeout": "1min"},
		})
		if err != nil {
			return err
		}
		if err := (*server).CreateDatabase(ctx, database); err != nil {
			return err
		}
	}
	log, err := w.logFile("kafka")
	if err != nil {
		return err
	}
	w.kafka, err = devstack.StartKafka(ctx, devstack.KafkaOptions{
		Dir: w.dir, Brokers: brokers, Detours: daemons, HeapMB: 256, Log: log,
		Settings: map[string]string{"offsets.topic.num.partitions": "3"},
	})
	return err
}

func (w *world) createTopics(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.PlainBrokers()...))
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	defer client.Close()
	for name, n := range map[string]int32{inputTopic: partitions, outputTopic: 4, deadLetterTopic: 1} {
		created, err := kadm.NewClient(client).CreateTopics(ctx, n, brokers, nil, name)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	return nil
}

func (w *world) createSource(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.source.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := devstack.CreateSourceTable(ctx, conn, pgx.Identifier{sourceTable}); err != nil {
		return err
	}
	// The index helps the read-through of a restaurant; the journal is how a lost commit is found.
	const more = `CREATE INDEX ON ` + sourceTable + ` (restaurant_id); CREATE TABLE soak_journal (n bigint PRIMARY KEY)`
	if _, err := conn.PgConn().Exec(ctx, more).ReadAll(); err != nil {
		return fmt.Errorf("create the journal: %w", err)
	}
	return nil
}

// addDaemon opens the daemon's own connections to every server.
func (w *world) addDaemon(n int, program string, fail func(error)) error {
	log, err := w.logFile("daemon-" + strconv.Itoa(n+1))
	if err != nil {
		return err
	}
	var bootstrap []string
	for b, detour := range w.kafka.Detour(n) {
		address, err := w.network.lead(n, "broker "+strconv.Itoa(b+1), detour.Advertised, detour.Listener)
		if err != nil {
			return err
		}
		bootstrap = append(bootstrap, address)
	}
	dsn := map[string]string{}
	for database, server := range map[string]*devstack.Postgres{sourceDatabase: w.source, feedbackDatabase: w.feedback} {
		dsn[database] = server.DSN(database)
	}
	for _, database := range []string{sourceDatabase, feedbackDatabase} {
		u, err := url.Parse(dsn[database])
		if err != nil {
			return fmt.Errorf("DSN of %s: %w", database, err)
		}
		if u.Host, err = w.network.lead(n, database, "127.0.0.1:0", u.Host); err != nil {
			return err
		}
		dsn[database] = u.String()
	}
	name := "soak_" + strconv.Itoa(n+1)
	budgets := [...]string{"256MiB", "24KiB", "4KiB"} // all, some and hardly any postings stay in memory
	w.daemons = append(w.daemons, &daemon{name: name, program: program, log: log, fail: fail, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir,
		"TIFFIN_SOURCE_DSN=" + dsn[sourceDatabase], "TIFFIN_FEEDBACK_DSN=" + dsn[feedbackDatabase], "TIFFIN_SOURCE_SLOT=" + name,
		"TIFFIN_KAFKA_BROKERS=" + strings.Join(bootstrap, ","), "TIFFIN_KAFKA_START=earliest", "TIFFIN_KAFKA_GROUP=" + group,
		"TIFFIN_KAFKA_INPUT=" + inputTopic, "TIFFIN_KAFKA_OUTPUT=" + outputTopic, "TIFFIN_KAFKA_DEAD_LETTER=" + deadLetterTopic,
		"TIFFIN_KAFKA_SESSION_TIMEOUT=" + sessionTimeout, "TIFFIN_INDEX_BUDGET=" + budgets[n%len(budgets)],
		"TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=" + strconv.Itoa(transactionRecords), "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}})
	return nil
}

// newBook plans 50 restaurants: most small, two whose campaigns take several transactions.
func newBook(random *rand.Rand) (b *book, large []string) {
	b = &book{sizes: map[string]int{}, rows: map[string][]row{}}
	for n := range 50 {
		name := fmt.Sprintf("restaurant-%02d", n)
		b.restaurants = append(b.restaurants, name)
		b.sizes[name] = 1 + int(60*random.Float64()*random.Float64())
		if n < 2 {
			b.sizes[name] = 1500 * (n + 1)
			large = append(large, name)
		}
	}
	for n := range 6000 {
		client := fmt.Sprintf("%08x-1111-4222-8333-%012x", random.Uint32(), n)
		if n%20 == 0 {
			client = fmt.Sprintf(`клиент "%d" <\&>`, n)
		}
		b.clients = append(b.clients, client)
	}
	return b, large
}

// heal starts whatever does not run and takes the faults off the network.
func (w *world) heal(ctx context.Context) error {
	return errors.Join(w.source.Start(ctx), w.feedback.Start(ctx), w.kafka.Start(ctx), w.startDaemons())
}

func (w *world) startDaemons() error {
	var faults []error
	for _, d := range w.daemons {
		faults = append(faults, d.start())
	}
	return errors.Join(faults...)
}

// close ends everything; the logs stay.
func (w *world) close() error {
	for _, d := range w.daemons {
		d.kill()
	}
	var faults []error
	if w.kafka != nil {
		faults = append(faults, w.kafka.Close())
	}
	for _, server := range []*devstack.Postgres{w.source, w.feedback} {
		if server != nil {
			faults = append(faults, server.Close())
		}
	}
	w.network.close()
	for _, f := range w.logs {
		faults = append(faults, f.Close())
	}
	return errors.Join(faults...)
}
