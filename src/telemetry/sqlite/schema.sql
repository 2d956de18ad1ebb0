-- Exchange records in SQLite, schema version 2. Columns are those of telemetry/row.rs (a test compares them).
-- Captured bodies come last: a query that does not read them never touches their overflow pages.
-- exchange_id is a UUIDv7 of 16 bytes, so the primary key's order is that of time, and pages are seeks on it.
-- Not WITHOUT ROWID: rows of some KiB inside an index tree cost twice the CPU and twice the file (measured).
CREATE TABLE exchanges (
    exchange_id BLOB NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    node TEXT NOT NULL,
    generation INTEGER NOT NULL,
    config_hash TEXT NOT NULL,
    key_id TEXT NOT NULL,
    environment TEXT NOT NULL,
    unit TEXT NOT NULL,
    user TEXT NOT NULL,
    session TEXT NOT NULL,
    tags TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    client_retries INTEGER NOT NULL,
    prompt_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    variant TEXT NOT NULL,
    assignment TEXT NOT NULL,
    deployment INTEGER NOT NULL,
    experiment_id TEXT NOT NULL,
    document_ids TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    streaming INTEGER NOT NULL,
    request_model TEXT NOT NULL,
    model TEXT NOT NULL,
    response_model TEXT NOT NULL,
    provider TEXT NOT NULL,
    target TEXT NOT NULL,
    attempts TEXT NOT NULL,
    cache_status TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error_kind TEXT NOT NULL,
    error_code TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,
    response_id TEXT NOT NULL,
    upstream_request_id TEXT NOT NULL,
    total_us INTEGER NOT NULL,
    upstream_us INTEGER NOT NULL,
    time_to_first_token_us INTEGER NOT NULL,
    overhead_us INTEGER NOT NULL,
    queue_us INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    tokens_estimated INTEGER NOT NULL,
    cost_nanodollars INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    variables_truncated INTEGER NOT NULL,
    request_truncated INTEGER NOT NULL,
    response_truncated INTEGER NOT NULL,
    capture TEXT NOT NULL DEFAULT 'full',
    variables TEXT NOT NULL,
    request TEXT NOT NULL,
    response TEXT NOT NULL
);

CREATE INDEX exchanges_by_prompt ON exchanges (prompt_id, environment, exchange_id);

CREATE TABLE feedback (
    feedback_id BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    exchange_id BLOB NOT NULL,
    response_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    number REAL NOT NULL,
    text TEXT NOT NULL,
    comment TEXT NOT NULL
);

CREATE INDEX feedback_by_exchange ON feedback (exchange_id);

-- One row for each spool segment stored, in the transaction that stored its rows: a segment offered again is skipped.
CREATE TABLE batches (
    token TEXT NOT NULL PRIMARY KEY,
    rows INTEGER NOT NULL,
    stored_at INTEGER NOT NULL
) WITHOUT ROWID;
