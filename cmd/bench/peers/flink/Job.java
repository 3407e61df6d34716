import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.stream.Stream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import sun.misc.Signal;

/**
 * The work of tiffin as an Apache Flink job, in one process: SQL tables for what comes and goes, and
 * between them a join of one of two kinds. KeyedJoin keeps the subscribers in keyed state, which the
 * log of the source keeps current; LookupJoin asks the source for each campaign.
 */
public final class Job {
    /** A join adds the view "deliveries", of the contract's ten columns. */
    interface Join {
        void define(StreamExecutionEnvironment env, StreamTableEnvironment tables, Names names) throws Exception;

        /** Returns once the job would take a campaign. */
        void awaitReady(JobClient job) throws Exception;
    }

    /** What a run reads, writes and calls itself; a rehearsal has names of its own. */
    record Names(String input, String output, String table, String group, Path checkpoints) {
        static Names real() {
            return new Names(env("PEER_INPUT"), env("PEER_OUTPUT"), "subscribers_feedback", env("PEER_GROUP"), scratch("checkpoints"));
        }

        static Names rehearsal() {
            return new Names(env("PEER_OUTPUT") + ".rehearsed-campaigns", env("PEER_OUTPUT") + ".rehearsed", "rehearsed",
                    env("PEER_GROUP") + "-rehearsal", scratch("rehearsed"));
        }

        boolean rehearsed() {
            return equals(rehearsal());
        }

        /** The newest checkpoint of a run that was killed after it was ready. */
        Optional<Path> kept() throws IOException {
            if (!Files.exists(wasReady) || !Files.isDirectory(checkpoints)) {
                return Optional.empty();
            }
            try (Stream<Path> found = Files.find(checkpoints, 3, (path, attributes) -> path.endsWith("_metadata"))) {
                return found.map(Path::getParent).max(Comparator.comparingLong(path -> path.toFile().lastModified()));
            }
        }
    }

    /** A file that is there once the job has been ready; bench calls a peer again that it has killed. */
    private static final Path wasReady = scratch("was-ready");

    static final String COLUMNS = """
            restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
            adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created""";

    static final String CAMPAIGN = """
            restaurant_id STRING, adv_campaign_id STRING, adv_campaign_content STRING, adv_campaign_owner STRING,
            adv_campaign_owner_contact STRING, adv_campaign_datetime_start BIGINT, adv_campaign_datetime_end BIGINT,
            datetime_created BIGINT""";

    private Job() {}

    public static void main(String[] args) throws Exception {
        var stop = new CountDownLatch(1);
        Signal.handle(new Signal("TERM"), signal -> stop.countDown());
        Join join = args[0].equals("lookup") ? new LookupJoin() : new KeyedJoin();
        if (!Files.exists(wasReady)) {
            Rehearsal.of(join);
        }
        JobClient job = start(join, Names.real());
        job.getJobExecutionResult().whenComplete((result, fault) -> {
            if (stop.getCount() > 0) {
                System.err.println("the job ended: " + fault);
                Runtime.getRuntime().halt(1);
            }
        });
        join.awaitReady(job);
        Files.writeString(wasReady, "");
        System.out.println("ready");
        stop.await();
        end(job);
        System.exit(0);
    }

    static JobClient start(Join join, Names names) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(configuration(names));
        StreamTableEnvironment tables = StreamTableEnvironment.create(env);
        join.define(env, tables, names);
        defineSinks(tables, names);
        StatementSet both = tables.createStatementSet();
        both.addInsertSql("INSERT INTO feedback SELECT " + COLUMNS + ", '' FROM deliveries");
        both.addInsertSql("INSERT INTO records SELECT " + COLUMNS + " FROM deliveries");
        return both.execute().getJobClient().orElseThrow();
    }

    /** Cancels the job and waits until it has let go of everything, of its replication slot too. */
    static void end(JobClient job) throws Exception {
        job.cancel().get();
        try {
            job.getJobExecutionResult().get();
        } catch (ExecutionException cancelled) {
            return;
        }
    }

    private static Configuration configuration(Names names) throws IOException {
        var settings = new HashMap<>(Map.of(
                "parallelism.default", String.valueOf(Runtime.getRuntime().availableProcessors()),
                "execution.checkpointing.interval", "1 s", // what is committed to Kafka is so at a checkpoint
                "execution.checkpointing.dir", names.checkpoints().toUri().toString(),
                "state.backend.type", "rocksdb", // a checkpoint has what changed, not all of the subscribers
                "execution.checkpointing.incremental", "true",
                "taskmanager.memory.managed.size", "512 mb",
                "io.tmp.dirs", env("PEER_SCRATCH"),
                "pipeline.object-reuse", "true",
                "rest.port", "0"));
        names.kept().ifPresent(checkpoint -> settings.put("execution.state-recovery.path", checkpoint.toUri().toString()));
        return Configuration.fromMap(settings);
    }

    private static void defineSinks(StreamTableEnvironment tables, Names names) {
        String delivery = CAMPAIGN + ", client_id STRING, trigger_datetime_created BIGINT";
        tables.executeSql("CREATE TABLE feedback (" + delivery + ", feedback STRING) WITH ("
                + options("connector", "jdbc", "table-name", names.table(),
                        "url", Database.FEEDBACK.url() + "&reWriteBatchedInserts=true",
                        "username", Database.FEEDBACK.user(), "password", Database.FEEDBACK.password(),
                        "sink.buffer-flush.max-rows", "10000", "sink.buffer-flush.interval", "100 ms") + ")");
        tables.executeSql("CREATE TABLE records (" + delivery + ") WITH ("
                + options("connector", "kafka", "topic", names.output(), "properties.bootstrap.servers", env("PEER_BROKERS"),
                        "key.format", "raw", "key.fields", "client_id", "value.format", "json",
                        "sink.delivery-guarantee", "exactly-once", "sink.transactional-id-prefix", names.group(),
                        "properties.transaction.timeout.ms", "900000", // the most that a broker allows by default
                        "properties.acks", "all", "properties.compression.type", "lz4",
                        "properties.linger.ms", "20", "properties.batch.size", "262144") + ")");
    }

    static String options(String... pairs) {
        var text = new StringBuilder();
        for (int i = 0; i < pairs.length; i += 2) {
            text.append(i == 0 ? "" : ", ").append('\'').append(pairs[i]).append("' = '").append(pairs[i + 1].replace("'", "''")).append('\'');
        }
        return text.toString();
    }

    private static Path scratch(String name) {
        return Path.of(env("PEER_SCRATCH"), name);
    }

    static String env(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalStateException(name + " is not set; bench sets it");
        }
        return value;
    }

    /** A database by its libpq URL. */
    enum Database {
        SOURCE("PEER_SOURCE_DSN"),
        FEEDBACK("PEER_FEEDBACK_DSN");

        private final URI dsn;

        Database(String name) {
            dsn = URI.create(env(name));
        }

        String host() {
            return dsn.getHost();
        }

        int port() {
            return dsn.getPort() < 0 ? 5432 : dsn.getPort();
        }

        String database() {
            return dsn.getPath().substring(1);
        }

        String url() {
            return "jdbc:postgresql://" + host() + ":" + port() + dsn.getPath() + "?" + (dsn.getQuery() == null ? "" : dsn.getQuery());
        }

        String user() {
            return dsn.getUserInfo() == null ? "postgres" : dsn.getUserInfo().split(":", 2)[0];
        }

        String password() {
            String info = dsn.getUserInfo();
            return info == null || !info.contains(":") ? "" : info.split(":", 2)[1];
        }

        /** Runs a statement and returns the first column of what it gives. */
        List<String> run(String sql) throws SQLException {
            var column = new ArrayList<String>();
            try (Connection connection = DriverManager.getConnection(url(), user(), password());
                    Statement statement = connection.createStatement()) {
                if (!statement.execute(sql)) {
                    return column;
                }
                try (ResultSet rows = statement.getResultSet()) {
                    while (rows.next()) {
                        column.add(rows.getString(1));
                    }
                }
            }
            return column;
        }

        long number(String sql) throws SQLException {
            return Long.parseLong(run(sql).get(0));
        }
    }
}
