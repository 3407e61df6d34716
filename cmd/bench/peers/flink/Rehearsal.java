import java.sql.SQLException;
import java.util.List;
import java.util.Map;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** The whole work once, with made-up campaigns, on topics and a table of its own: a job that has run for days is no cold JVM. */
final class Rehearsal {
    /** About so many deliveries. */
    private static final long DELIVERIES = 50_000;

    private Rehearsal() {}

    /** Restaurants that have about so many subscribers together, at least one. */
    private static final String CHOSEN = """
            FROM (SELECT restaurant_id, count(*) AS n, sum(count(*)) OVER (ORDER BY restaurant_id) - count(*) AS before
            FROM subscribers_restaurants GROUP BY restaurant_id) AS r WHERE before <\040""" + DELIVERIES;

    static void of(Job.Join join) throws Exception {
        List<String> restaurants = Job.Database.SOURCE.run("SELECT restaurant_id " + CHOSEN);
        Job.Names names = Job.Names.rehearsal();
        List<String> topics = List.of(names.input(), names.output());
        try (AdminClient admin = AdminClient.create(Map.of("bootstrap.servers", Job.env("PEER_BROKERS")))) {
            int partitions = Runtime.getRuntime().availableProcessors();
            admin.createTopics(topics.stream().map(topic -> new NewTopic(topic, partitions, (short) 1)).toList()).all().get();
            Job.Database.FEEDBACK.run("CREATE TABLE " + names.table() + " (LIKE subscribers_feedback INCLUDING ALL)");
            publish(names.input(), restaurants);
            run(join, names, subscribers());
            Job.Database.FEEDBACK.run("DROP TABLE " + names.table());
            admin.deleteTopics(topics).all().get();
        }
    }

    static long subscribers() throws SQLException {
        return Job.Database.SOURCE.number("SELECT coalesce(sum(n), 0) " + CHOSEN);
    }

    /** Their rows, read by query: what the log brings would take a slot of its own and the whole table. */
    static Table table(StreamTableEnvironment tables) {
        tables.executeSql("CREATE TABLE rehearsed_subscribers (restaurant_id STRING, client_id STRING) WITH ("
                + Job.options("connector", "jdbc", "url", Job.Database.SOURCE.url(), "scan.fetch-size", "10000",
                        "username", Job.Database.SOURCE.user(), "password", Job.Database.SOURCE.password(),
                        "table-name", "(SELECT restaurant_id, client_id FROM subscribers_restaurants WHERE restaurant_id IN (SELECT restaurant_id " + CHOSEN + ")) AS chosen") + ")");
        return tables.sqlQuery("SELECT restaurant_id, client_id FROM rehearsed_subscribers");
    }

    private static void publish(String topic, List<String> restaurants) {
        long now = System.currentTimeMillis() / 1000;
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", Job.env("PEER_BROKERS")), new StringSerializer(), new StringSerializer())) {
            for (String restaurant : restaurants) {
                producer.send(new ProducerRecord<>(topic, """
                        {"restaurant_id": "%s", "adv_campaign_id": "rehearsal", "adv_campaign_content": "rehearsal", "adv_campaign_owner": "",
                        "adv_campaign_owner_contact": "", "adv_campaign_datetime_start": %d, "adv_campaign_datetime_end": %d,
                        "datetime_created": %d}""".formatted(restaurant, now - 3600, now + 3600, now)));
            }
        }
    }

    private static void run(Job.Join join, Job.Names names, long expected) throws Exception {
        JobClient job = Job.start(join, names);
        join.awaitReady(job);
        while (Job.Database.FEEDBACK.number("SELECT count(*) FROM " + names.table()) < expected) {
            if (job.getJobExecutionResult().isDone()) {
                throw new IllegalStateException("the rehearsal's job ended by itself");
            }
            Thread.sleep(100);
        }
        Job.end(job);
    }
}
