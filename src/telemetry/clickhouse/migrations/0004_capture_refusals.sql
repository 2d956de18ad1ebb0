-- What was kept of an exchange's content. Rows of older builds have no such column: they are `full`.
ALTER TABLE exchanges ADD COLUMN IF NOT EXISTS capture LowCardinality(String) DEFAULT 'full' AFTER response_truncated;

-- Requests refused in a flood, counted together.
CREATE TABLE IF NOT EXISTS refusals
(
    refusals_id UUID CODEC(ZSTD(1)),
    since DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    until DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    node LowCardinality(String),
    key_id LowCardinality(String),
    endpoint LowCardinality(String),
    error_code LowCardinality(String),
    status_code UInt16 CODEC(T64, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(since)
ORDER BY (since, refusals_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;
