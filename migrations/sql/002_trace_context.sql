ALTER TABLE tiffin.trigger ADD COLUMN traceparent text NULL, ADD COLUMN tracestate text NULL;
COMMENT ON COLUMN tiffin.trigger.traceparent IS
    'The header of that name in the message''s output records (W3C Trace Context); null without tracing, or without recipients.';
COMMENT ON COLUMN tiffin.trigger.tracestate IS 'The header of that name beside it; null if there is none.';
