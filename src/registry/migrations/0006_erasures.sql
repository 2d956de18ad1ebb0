-- Requests to erase what was recorded of a person. Rows stay: what comes late (a backlog, a resent dead letter) is erased by
-- them as well. user_hash is the pseudonym in the records; the id itself is written nowhere.
CREATE TABLE erasures (
    id TEXT NOT NULL PRIMARY KEY,
    user_hash TEXT NOT NULL,
    reason TEXT NOT NULL,
    until_at BIGINT NOT NULL,
    requested_by TEXT NOT NULL,
    exchanges BIGINT NOT NULL,
    done_at BIGINT
);
CREATE INDEX erasures_by_time ON erasures (until_at);
