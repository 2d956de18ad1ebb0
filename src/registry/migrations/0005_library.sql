-- uid is the prompt whatever it is called: ids move when prompts are renamed, and may be given to another one later.
-- salt_id is the id it was created with, which its splits are salted with: a rename moves nobody to another variant.
ALTER TABLE prompts ADD COLUMN uid TEXT NOT NULL DEFAULT '';
ALTER TABLE prompts ADD COLUMN salt_id TEXT NOT NULL DEFAULT '';
UPDATE prompts SET uid = id, salt_id = id;
CREATE UNIQUE INDEX prompts_by_uid ON prompts (uid);
ALTER TABLE prompts ADD COLUMN owner TEXT NOT NULL DEFAULT '';
-- Counts the changes of what people write about a prompt: its ETag.
ALTER TABLE prompts ADD COLUMN revision BIGINT NOT NULL DEFAULT 1;
ALTER TABLE prompts ADD COLUMN archived_at BIGINT;

-- Names that led somewhere and do not any more, so that every node forgets them, whatever else it missed.
CREATE TABLE retired_names (
    name TEXT NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL
);
CREATE INDEX retired_names_by_generation ON retired_names (generation);

ALTER TABLE environments ADD COLUMN label TEXT NOT NULL DEFAULT '';

-- The version that an editor began with, if that is known.
ALTER TABLE versions ADD COLUMN parent BIGINT;
CREATE INDEX versions_by_hash ON versions (prompt_id, hash);

-- content is as submitted, also when it does not compile. base_version is 0 for a draft of the first version.
CREATE TABLE drafts (
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    base_version BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (prompt_id, owner, name)
);

-- A plan of deployments. next_step and next_at are what is due next and when, expects the number of the deployment that
-- must be live then. approved lets its steps into a protected environment.
CREATE TABLE shifts (
    id TEXT NOT NULL PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    environment TEXT NOT NULL REFERENCES environments (name),
    message TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'cancelled', 'failed')),
    reason TEXT NOT NULL,
    next_step BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    expects BIGINT NOT NULL,
    approved BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    creator_id TEXT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX shifts_by_state ON shifts (state, next_at);
CREATE INDEX shifts_by_prompt ON shifts (prompt_id, environment, state);

-- A step is due at a time, or that long after the step before it was carried out.
CREATE TABLE shift_steps (
    shift_id TEXT NOT NULL REFERENCES shifts (id),
    step BIGINT NOT NULL,
    due_at BIGINT,
    after_us BIGINT,
    split TEXT NOT NULL,
    deployment BIGINT,
    applied_at BIGINT,
    PRIMARY KEY (shift_id, step)
);
