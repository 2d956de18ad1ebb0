-- Times are microseconds since the Unix epoch, UTC; booleans are 0 or 1; JSON is text.

-- The state's number and its lineage: a restored backup gets a new epoch, so that nodes reload everything.
CREATE TABLE meta (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    generation BIGINT NOT NULL
);

CREATE TABLE environments (
    name TEXT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    protected BIGINT NOT NULL,
    generation BIGINT NOT NULL
);

CREATE TABLE prompts (
    id TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    generation BIGINT NOT NULL
);
CREATE INDEX prompts_by_generation ON prompts (generation);

CREATE TABLE aliases (
    alias TEXT NOT NULL PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id)
);
CREATE INDEX aliases_by_prompt ON aliases (prompt_id);

-- content is effective (partials frozen in), source is what was submitted.
CREATE TABLE versions (
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    version BIGINT NOT NULL,
    content TEXT NOT NULL,
    source TEXT NOT NULL,
    hash TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (prompt_id, version)
);

-- Which version names which other version in its own text.
CREATE TABLE partials (
    prompt_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    partial_id TEXT NOT NULL,
    partial_version BIGINT NOT NULL,
    PRIMARY KEY (prompt_id, version, partial_id, partial_version),
    FOREIGN KEY (prompt_id, version) REFERENCES versions (prompt_id, version),
    FOREIGN KEY (partial_id, partial_version) REFERENCES versions (prompt_id, version)
);
CREATE INDEX partials_by_partial ON partials (partial_id, partial_version);

CREATE TABLE deployments (
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    environment TEXT NOT NULL REFERENCES environments (name),
    number BIGINT NOT NULL,
    split TEXT NOT NULL,
    message TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('deploy', 'rollback')),
    rolled_back_to BIGINT,
    generation BIGINT NOT NULL,
    PRIMARY KEY (prompt_id, environment, number)
);

-- The last deployment of each prompt and environment, so that nobody reads the history to find it.
CREATE TABLE live (
    prompt_id TEXT NOT NULL,
    environment TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (prompt_id, environment),
    FOREIGN KEY (prompt_id, environment, number) REFERENCES deployments (prompt_id, environment, number)
);

-- Every version an environment ever had in a split; live marks those of the present one.
CREATE TABLE deployed_versions (
    prompt_id TEXT NOT NULL,
    environment TEXT NOT NULL,
    version BIGINT NOT NULL,
    live BIGINT NOT NULL,
    PRIMARY KEY (prompt_id, environment, version),
    FOREIGN KEY (prompt_id, version) REFERENCES versions (prompt_id, version)
);

-- digest is the SHA-256 of the secret, in lowercase hexadecimal; models is null for all.
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL REFERENCES environments (name),
    environments TEXT NOT NULL,
    models TEXT,
    raw BIGINT NOT NULL,
    pin BIGINT NOT NULL,
    force_variant BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at BIGINT,
    generation BIGINT NOT NULL
);
CREATE INDEX keys_by_generation ON keys (generation);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Append-only: nothing in the program updates or deletes a row.
CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);

INSERT INTO environments (name, position, protected, generation)
VALUES ('development', 1, 0, 1), ('staging', 2, 0, 1), ('production', 3, 0, 1);
