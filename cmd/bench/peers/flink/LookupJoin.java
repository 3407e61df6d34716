import org.apache.flink.api.common.JobStatus;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** SQL's lookup join: each campaign asks the source by JDBC, without a cache, by an index that the documentation asks for. */
final class LookupJoin implements Job.Join {
    @Override
    public void define(StreamExecutionEnvironment env, StreamTableEnvironment tables, Job.Names names) throws Exception {
        Job.Database.SOURCE.run("CREATE INDEX IF NOT EXISTS subscribers_by_restaurant ON subscribers_restaurants (restaurant_id) INCLUDE (client_id)");
        tables.executeSql("CREATE TABLE subscribers (client_id STRING, restaurant_id STRING) WITH ("
                + Job.options("connector", "jdbc", "url", Job.Database.SOURCE.url(), "table-name", "subscribers_restaurants",
                        "username", Job.Database.SOURCE.user(), "password", Job.Database.SOURCE.password()) + ")");
        tables.executeSql("CREATE TABLE campaigns (" + Job.CAMPAIGN + ", now_ AS PROCTIME()) WITH ("
                + Job.options("connector", "kafka", "topic", names.input(), "properties.bootstrap.servers", Job.env("PEER_BROKERS"),
                        "properties.group.id", names.group(), "scan.startup.mode", "earliest-offset",
                        "format", "json", "json.ignore-parse-errors", "true") + ")");
        // Through a stream, so that both sinks get what was joined once: a time of now is another one when it is asked again.
        tables.createTemporaryView("triggers", tables.toDataStream(tables.sqlQuery("SELECT *, UNIX_TIMESTAMP() AS trigger_datetime_created FROM campaigns")));
        tables.createTemporaryView("deliveries", tables.toDataStream(tables.sqlQuery(
                "SELECT " + Job.COLUMNS.replace("restaurant_id", "c.restaurant_id").replace("client_id", "s.client_id")
                        + " FROM (SELECT *, PROCTIME() AS at_ FROM triggers) AS c JOIN subscribers FOR SYSTEM_TIME AS OF c.at_ AS s ON s.restaurant_id = c.restaurant_id"
                        + " WHERE trigger_datetime_created BETWEEN adv_campaign_datetime_start AND adv_campaign_datetime_end")));
    }

    @Override
    public void awaitReady(JobClient job) throws Exception {
        while (job.getJobStatus().get() != JobStatus.RUNNING) {
            Thread.sleep(10);
        }
    }
}
