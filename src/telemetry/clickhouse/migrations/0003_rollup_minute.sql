-- What dashboards read: a row for each minute and combination, some hundred times fewer than exchanges. Quantiles are
-- mergeable states: quantilesTDigestMerge(0.5, 0.95, 0.99)(latency), and quantilesTDigestIfMerge for time_to_first_token.
-- The window is needed here as well: a token offered again must not be counted again (tried).
CREATE TABLE IF NOT EXISTS rollup_minute
(
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    prompt_id LowCardinality(String),
    version UInt32,
    variant LowCardinality(String),
    environment LowCardinality(String),
    endpoint LowCardinality(String),
    model LowCardinality(String),
    provider LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    latency AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), UInt64),
    time_to_first_token AggregateFunction(quantilesTDigestIf(0.5, 0.95, 0.99), UInt64, UInt8),
    input_tokens SimpleAggregateFunction(sum, UInt64),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64),
    output_tokens SimpleAggregateFunction(sum, UInt64),
    reasoning_tokens SimpleAggregateFunction(sum, UInt64),
    total_tokens SimpleAggregateFunction(sum, UInt64),
    cost_nanodollars SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (prompt_id, environment, minute, version, variant, endpoint, model, provider)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_minute_of_exchanges TO rollup_minute AS
SELECT
    toStartOfMinute(toDateTime(started_at, 'UTC')) AS minute,
    prompt_id,
    version,
    variant,
    environment,
    endpoint,
    model,
    provider,
    count() AS requests,
    countIf(outcome != 'ok') AS errors,
    quantilesTDigestState(0.5, 0.95, 0.99)(total_us) AS latency,
    quantilesTDigestIfState(0.5, 0.95, 0.99)(
        time_to_first_token_us,
        toUInt8(streaming AND time_to_first_token_us > 0)
    ) AS time_to_first_token,
    sum(exchanges.input_tokens) AS input_tokens,
    sum(exchanges.cached_input_tokens) AS cached_input_tokens,
    sum(exchanges.output_tokens) AS output_tokens,
    sum(exchanges.reasoning_tokens) AS reasoning_tokens,
    sum(exchanges.total_tokens) AS total_tokens,
    sum(exchanges.cost_nanodollars) AS cost_nanodollars
FROM exchanges
GROUP BY minute, prompt_id, version, variant, environment, endpoint, model, provider;
