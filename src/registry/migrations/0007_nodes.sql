-- How many migrations a program must know to go on once this one is applied (schema.rs).
ALTER TABLE migrations ADD COLUMN needs BIGINT NOT NULL DEFAULT 0;

-- Processes that serve this registry, each by an id of its run. generation is what it serves, confirmed_at when it last knew
-- that to be the newest; both and seen_at are written by the process, and change no generation.
CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    address TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    epoch TEXT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX nodes_by_time ON nodes (seen_at);
