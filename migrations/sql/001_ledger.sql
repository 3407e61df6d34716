CREATE TABLE tiffin.progress (
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      int         NOT NULL CHECK (partition >= 0),
    epoch          bigint      NOT NULL CHECK (epoch >= 0),
    next_offset    bigint      NOT NULL CHECK (next_offset >= 0),
    start_offset   bigint      NOT NULL,
    owner          text        NOT NULL DEFAULT '',
    topic_id       uuid        NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
);
COMMENT ON TABLE tiffin.progress IS
    'How far each partition of the campaign topic has been written to the feedback table; orders the writers of a partition.';
COMMENT ON COLUMN tiffin.progress.consumer_group IS 'kafka.group';
COMMENT ON COLUMN tiffin.progress.topic IS 'kafka.input';
COMMENT ON COLUMN tiffin.progress.epoch IS
    'Raised by one whenever a process takes the partition; a writer that holds an older epoch is fenced.';
COMMENT ON COLUMN tiffin.progress.next_offset IS
    'The first offset whose campaign message has not been written; equal to or ahead of the group''s offset in Kafka.';
COMMENT ON COLUMN tiffin.progress.start_offset IS
    'Where the group began in this partition (kafka.start, resolved once), or where a process last gave it up in order.';
COMMENT ON COLUMN tiffin.progress.owner IS 'The process that took the partition last; empty once it has given it up in order.';
COMMENT ON COLUMN tiffin.progress.topic_id IS
    'Kafka''s id of the topic; another one means the topic was deleted and created again. Null if the broker has none.';
COMMENT ON COLUMN tiffin.progress.updated_at IS 'When the row was last written.';

CREATE TABLE tiffin.trigger (
    consumer_group           text           NOT NULL,
    topic                    text           NOT NULL,
    partition                int            NOT NULL,
    record_offset            bigint         NOT NULL,
    outcome                  text           NOT NULL
        CHECK (outcome IN ('delivered', 'inactive', 'no_subscribers', 'malformed')),
    restaurant_id            text           NULL,
    adv_campaign_id          text           NULL,
    trigger_datetime_created bigint         NULL,
    fence_lsn                pg_lsn         NULL,
    stale                    boolean        NOT NULL DEFAULT false,
    recipients               bigint         NOT NULL DEFAULT 0 CHECK (recipients >= 0),
    feedback_ids             int8multirange NULL,
    reason                   text           NULL,
    error                    text           NULL,
    handled_at               timestamptz    NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition, record_offset)
);
COMMENT ON TABLE tiffin.trigger IS
    'The manifest: one row per campaign message handled, whatever became of it.';
COMMENT ON COLUMN tiffin.trigger.record_offset IS 'Offset of the campaign message.';
COMMENT ON COLUMN tiffin.trigger.outcome IS 'delivered, inactive, no_subscribers or malformed.';
COMMENT ON COLUMN tiffin.trigger.restaurant_id IS 'Of the message; null if it could not be read.';
COMMENT ON COLUMN tiffin.trigger.adv_campaign_id IS 'Of the message; null if it could not be read.';
COMMENT ON COLUMN tiffin.trigger.trigger_datetime_created IS
    'Unix seconds (UTC) of the join; the same in the feedback rows and the records.';
COMMENT ON COLUMN tiffin.trigger.fence_lsn IS
    'The source''s position that the index had reached before the join; null without a fence.';
COMMENT ON COLUMN tiffin.trigger.stale IS
    'Joined against an index of bounded age (source.max_staleness) while the source could not be asked.';
COMMENT ON COLUMN tiffin.trigger.recipients IS 'Number of clients that the message goes to.';
COMMENT ON COLUMN tiffin.trigger.feedback_ids IS
    'Ids of the message''s rows in the feedback table; ascending ids are the order of the records.';
COMMENT ON COLUMN tiffin.trigger.reason IS
    'Why the message went to the dead-letter topic or was not active; the same word as in the metrics.';
COMMENT ON COLUMN tiffin.trigger.error IS 'The reason as a sentence.';
COMMENT ON COLUMN tiffin.trigger.handled_at IS 'When the transaction that wrote the row began.';
