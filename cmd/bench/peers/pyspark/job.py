"""Our own rendition of the job that tiffin replaces: Spark Structured Streaming in micro-batches.

Each batch reads the whole subscription table, keeps the active campaigns, joins, appends the rows to
the feedback table by JDBC and writes the records to the output topic. Of the old job's defects one
is mended, since no two runs could be compared with it: it took the trigger time once, at its start.
Here it is that of the batch.

With TUNED=yes it is the same job with what the documentation of Spark and pgjdbc offers; TUNED below
has all of the difference.
"""

import glob
import os
import signal
import sys
import threading
from urllib.parse import urlsplit

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

TUNED = os.environ.get("TUNED") == "yes"
CORES = os.cpu_count()
HEAP_MB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 >> 20  # the JVM's own default; Spark's is 1 GiB
CHECKPOINT = os.path.join(os.environ["PEER_SCRATCH"], "checkpoint")
WARM_UP = 50_000  # deliveries, about

CAMPAIGN = StructType(
    [StructField(name, StringType()) for name in (
        "restaurant_id", "adv_campaign_id", "adv_campaign_content", "adv_campaign_owner", "adv_campaign_owner_contact")]
    + [StructField(name, LongType()) for name in (
        "adv_campaign_datetime_start", "adv_campaign_datetime_end", "datetime_created")]
)
DELIVERY = CAMPAIGN.fieldNames() + ["client_id", "trigger_datetime_created"]


def session():
    builder = (
        SparkSession.builder.appName("peer").master("local[*]")
        .config("spark.driver.extraClassPath", ":".join(glob.glob(os.path.join(os.environ["JARS"], "*.jar"))))
        .config("spark.driver.memory", f"{HEAP_MB}m")  # in local mode that of everything
        .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
        .config("spark.local.dir", os.environ["PEER_SCRATCH"])
        .config("spark.sql.warehouse.dir", os.path.join(os.environ["PEER_SCRATCH"], "warehouse"))
    )
    if TUNED:
        # The default is 200 tasks for every shuffle: made for a cluster.
        builder = builder.config("spark.sql.shuffle.partitions", CORES)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def jdbc(dsn, **options):
    """The options of a connection, from a libpq URL."""
    url = urlsplit(dsn)
    query = "&".join(filter(None, [url.query, "reWriteBatchedInserts=true" if TUNED else ""]))
    return {
        "url": f"jdbc:postgresql://{url.hostname}:{url.port or 5432}{url.path}?{query}",
        "user": url.username or "postgres", "password": url.password or "", "driver": "org.postgresql.Driver", **options,
    }


def subscribers(spark):
    """The whole table, anew whenever what is made of it runs."""
    source = jdbc(os.environ["PEER_SOURCE_DSN"])
    options = {"dbtable": "subscribers_restaurants"}
    if TUNED:
        bounds = spark.read.format("jdbc").options(
            **source, query="SELECT coalesce(min(id), 0) AS low, coalesce(max(id), 0) + 1 AS high FROM subscribers_restaurants").load().first()
        # A connection for each core, and rows by cursor instead of the whole table in memory.
        options.update(partitionColumn="id", lowerBound=bounds.low, upperBound=bounds.high, numPartitions=CORES, fetchsize=10_000)
    return spark.read.format("jdbc").options(**source, **options).load().select("restaurant_id", "client_id")


def deliveries(values, table):
    """What campaigns (JSON in the column value) lead to. The time is the batch's, the same for all of it."""
    campaigns = (
        values.select(F.from_json(F.col("value").cast("string"), CAMPAIGN).alias("campaign")).select("campaign.*")
        .dropna()
        .withColumn("trigger_datetime_created", F.unix_timestamp())
        .where("adv_campaign_datetime_start <= trigger_datetime_created AND trigger_datetime_created <= adv_campaign_datetime_end")
    )
    if TUNED:
        campaigns = F.broadcast(campaigns)  # the few rows go to the many: the table is not shuffled
    return campaigns.join(table, "restaurant_id").select(DELIVERY)


def deliver(batch, table, topic):
    """Writes a batch to both sinks. It is kept in between: without that the table would be read for each of them."""
    batch.persist()
    rows = batch.withColumn("feedback", F.lit(""))
    options = {"dbtable": table}
    if TUNED:
        options.update(batchsize=10_000)
    rows.write.format("jdbc").options(**jdbc(os.environ["PEER_FEEDBACK_DSN"]), **options).mode("append").save()
    records = batch.select(F.col("client_id").alias("key"), F.to_json(F.struct(DELIVERY)).alias("value"))
    kafka = {"kafka.bootstrap.servers": os.environ["PEER_BROKERS"], "kafka.acks": "all", "kafka.compression.type": "lz4", "topic": topic}
    if TUNED:
        kafka.update({"kafka.linger.ms": "20", "kafka.batch.size": str(256 << 10)})
    records.write.format("kafka").options(**kafka).save()
    batch.unpersist()


def warm_up(spark):
    """The same work, made up, into a table and a topic of its own: a job that has run for days is no cold JVM."""
    restaurants = spark.read.format("jdbc").options(**jdbc(os.environ["PEER_SOURCE_DSN"]), query=f"""
        SELECT restaurant_id FROM (
            SELECT restaurant_id, sum(count(*)) OVER (ORDER BY restaurant_id) - count(*) AS before
            FROM subscribers_restaurants GROUP BY restaurant_id) AS r
        WHERE before < {WARM_UP}""").load()
    now = F.unix_timestamp()
    made_up = [F.lit("warm-up").alias(name) for name in CAMPAIGN.fieldNames()[1:5]] + [
        (now - 3600).alias("adv_campaign_datetime_start"), (now + 3600).alias("adv_campaign_datetime_end"), now.alias("datetime_created")]
    values = restaurants.select(F.to_json(F.struct("restaurant_id", *made_up)).alias("value"))
    topic = os.environ["PEER_OUTPUT"] + ".warm-up"
    jvm = spark._jvm
    admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(jvm.java.util.HashMap({"bootstrap.servers": os.environ["PEER_BROKERS"]}))
    admin.createTopics([jvm.org.apache.kafka.clients.admin.NewTopic(topic, CORES, 1)]).all().get()
    # The table is made by appending to it, and goes with the database.
    deliver(deliveries(values, subscribers(spark)), "warm_up", topic)
    admin.deleteTopics([topic]).all().get()
    admin.close()


def start(spark):
    values = (
        spark.readStream.format("kafka").option("kafka.bootstrap.servers", os.environ["PEER_BROKERS"])
        .option("subscribe", os.environ["PEER_INPUT"]).option("startingOffsets", "earliest").load()
    )
    return (
        deliveries(values, subscribers(spark)).writeStream
        .foreachBatch(lambda batch, _: deliver(batch, "subscribers_feedback", os.environ["PEER_OUTPUT"]))
        .option("checkpointLocation", CHECKPOINT)
        .start()
    )


def main():
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spark = session()
    if not os.path.exists(CHECKPOINT):  # bench calls a peer again that it has killed
        warm_up(spark)
    query = start(spark)
    print("ready", flush=True)
    while not stop.wait(0.2):
        if not query.isActive:
            sys.exit(f"the query ended: {query.exception()}")
    query.stop()
    spark.stop()


if __name__ == "__main__":
    main()
