-- Requests refused in a flood, counted together.
CREATE TABLE refusals (
    refusals_id BLOB NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    node TEXT NOT NULL,
    key_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    error_code TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    requests INTEGER NOT NULL
);

CREATE INDEX refusals_by_time ON refusals (since);
