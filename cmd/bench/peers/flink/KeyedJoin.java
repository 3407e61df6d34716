import static org.apache.flink.api.common.typeinfo.Types.INT;
import static org.apache.flink.api.common.typeinfo.Types.LONG;
import static org.apache.flink.api.common.typeinfo.Types.ROW_NAMED;
import static org.apache.flink.api.common.typeinfo.Types.STRING;

import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.CheckpointListener;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.enumerator.subscriber.KafkaSubscriber;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.common.TopicPartition;

/**
 * The subscribers of each restaurant in keyed state, by change data capture. SQL has no join for
 * this (a table with several rows a key, as of now, that changes nothing of what was joined before),
 * so it is an operator.
 *
 * <p>A campaign that comes before its subscribers are loaded would lead to nothing, in silence. So
 * the campaigns' topic gets no partitions until as many rows are in the state as the table has.
 */
final class KeyedJoin implements Job.Join {
    /** Rows in the state, and whether that are enough. All operators are in this process. */
    private static final LongAdder loaded = new LongAdder();
    private static volatile boolean open;
    private static final LongAdder checkpoints = new LongAdder();

    private static final String[] COLUMNS = Job.COLUMNS.split(",\\s*");
    private static final TypeInformation<Row> DELIVERY =
            ROW_NAMED(COLUMNS, STRING, STRING, STRING, STRING, STRING, LONG, LONG, LONG, STRING, LONG);

    private long expected;

    @Override
    public void define(StreamExecutionEnvironment env, StreamTableEnvironment tables, Job.Names names) throws Exception {
        loaded.reset();
        open = names.kept().isPresent(); // with the subscribers
        expected = open ? 0 : names.rehearsed() ? Rehearsal.subscribers() : Job.Database.SOURCE.number("SELECT count(*) FROM subscribers_restaurants");
        DataStream<Row> changes = tables.toChangelogStream(names.rehearsed() ? Rehearsal.table(tables) : captured(tables));
        var source = KafkaSource.<String>builder().setBootstrapServers(Job.env("PEER_BROKERS")).setGroupId(names.group())
                .setKafkaSubscriber(new WhenLoaded(names.input())).setStartingOffsets(OffsetsInitializer.earliest())
                .setProperty("partition.discovery.interval.ms", "100").setValueOnlyDeserializer(new SimpleStringSchema()).build();
        var campaigns = env.fromSource(source, WatermarkStrategy.noWatermarks(), "campaigns").uid("campaigns")
                .flatMap((String json, Collector<Row> out) -> parse(json, out)).returns(DELIVERY);
        var deliveries = changes.keyBy(change -> change.<String>getFieldAs("restaurant_id"))
                .connect(campaigns.keyBy(campaign -> campaign.<String>getFieldAs(0)))
                .process(new Subscribers()).uid("subscribers").returns(DELIVERY);
        tables.createTemporaryView("deliveries", deliveries);
    }

    /** The table by its log. Upserts, since its replica identity is its key: Flink remembers the rows by it. */
    private static Table captured(StreamTableEnvironment tables) {
        tables.executeSql("CREATE TABLE subscribers (id BIGINT, client_id STRING, restaurant_id STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ("
                + Job.options("connector", "postgres-cdc", "hostname", Job.Database.SOURCE.host(),
                        "port", String.valueOf(Job.Database.SOURCE.port()), "database-name", Job.Database.SOURCE.database(),
                        "username", Job.Database.SOURCE.user(), "password", Job.Database.SOURCE.password(),
                        "schema-name", "public", "table-name", "subscribers_restaurants", "changelog-mode", "upsert",
                        "decoding.plugin.name", "pgoutput", "slot.name", Job.env("PEER_SLOT"),
                        "debezium.publication.name", Job.env("PEER_PUBLICATION"), "debezium.publication.autocreate.mode", "filtered",
                        "scan.incremental.snapshot.chunk.size", "100000", "scan.snapshot.fetch.size", "10000") + ")");
        return tables.sqlQuery("SELECT restaurant_id, client_id FROM subscribers");
    }

    @Override
    public void awaitReady(JobClient job) throws InterruptedException {
        while (loaded.sum() < expected) {
            Thread.sleep(20);
        }
        // The first checkpoint after the load holds all of it, and the work up for so long; each task counts its own.
        for (long before = checkpoints.sum(); !open && checkpoints.sum() < before + 2L * Runtime.getRuntime().availableProcessors(); ) {
            Thread.sleep(20);
        }
        open = true;
    }

    private static final ObjectMapper mapper = new ObjectMapper();

    /** A campaign is a delivery without client and time; what is malformed is dropped. */
    private static void parse(String json, Collector<Row> out) {
        JsonNode campaign;
        try {
            campaign = mapper.readTree(json);
        } catch (Exception malformed) {
            return;
        }
        Row row = new Row(COLUMNS.length);
        for (int i = 0; i < 8; i++) {
            JsonNode value = campaign.get(COLUMNS[i]);
            if (value == null || !(i < 5 ? value.isTextual() : value.isIntegralNumber())) {
                return;
            }
            row.setField(i, i < 5 ? value.textValue() : (Object) value.longValue());
        }
        out.collect(row);
    }

    /** Knows no partition of the topic until the state is loaded. Those found later are read from their start. */
    private static final class WhenLoaded implements KafkaSubscriber {
        private final KafkaSubscriber always;

        WhenLoaded(String topic) {
            always = KafkaSubscriber.getTopicListSubscriber(List.of(topic));
        }

        @Override
        public Set<TopicPartition> getSubscribedTopicPartitions(AdminClient admin) {
            return open ? always.getSubscribedTopicPartitions(admin) : Set.of();
        }
    }

    /** Clients of the restaurant, each with the number of its rows. */
    private static final class Subscribers extends KeyedCoProcessFunction<String, Row, Row, Row> implements CheckpointListener {
        private transient MapState<String, Integer> rows;

        @Override
        public void open(OpenContext context) {
            rows = getRuntimeContext().getMapState(new MapStateDescriptor<>("rows", STRING, INT));
        }

        @Override
        public void notifyCheckpointComplete(long id) {
            checkpoints.increment();
        }

        @Override
        public void processElement1(Row change, Context context, Collector<Row> out) throws Exception {
            String client = change.getFieldAs("client_id");
            Integer before = rows.get(client);
            int by = switch (change.getKind()) {
                case INSERT, UPDATE_AFTER -> 1;
                case DELETE, UPDATE_BEFORE -> -1;
            };
            int now = (before == null ? 0 : before) + by;
            if (now > 0) {
                rows.put(client, now);
            } else {
                rows.remove(client);
            }
            loaded.add(by);
        }

        @Override
        public void processElement2(Row campaign, Context context, Collector<Row> out) throws Exception {
            long now = System.currentTimeMillis() / 1000;
            if (now < campaign.<Long>getFieldAs(5) || now > campaign.<Long>getFieldAs(6)) {
                return;
            }
            for (String client : rows.keys()) {
                Row delivery = Row.copy(campaign);
                delivery.setField(8, client);
                delivery.setField(9, now);
                out.collect(delivery);
            }
        }
    }
}
