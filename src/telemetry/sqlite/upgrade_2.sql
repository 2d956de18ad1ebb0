-- From schema version 1 to 2. The new column comes behind the bodies here: that costs reading their overflow pages, and
-- nothing else.
ALTER TABLE exchanges ADD COLUMN capture TEXT NOT NULL DEFAULT 'full';

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
