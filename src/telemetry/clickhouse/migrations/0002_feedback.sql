-- Scores attached to exchanges, found by exchange; those that came with a provider's response id by that.
CREATE TABLE IF NOT EXISTS feedback
(
    feedback_id UUID CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    exchange_id UUID CODEC(ZSTD(1)),
    response_id String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    name LowCardinality(String),
    kind LowCardinality(String),
    number Float64 CODEC(ZSTD(1)),
    text String CODEC(ZSTD(3)),
    comment String CODEC(ZSTD(3)),
    INDEX by_response response_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(at)
ORDER BY (exchange_id, at, feedback_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1;
