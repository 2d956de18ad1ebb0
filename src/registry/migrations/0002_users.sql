-- A person or a service. name never changes and is never given to another: versions, deployments and the audit log name
-- their authors by it. password_hash is for signing in to the console; nothing writes it yet.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('person', 'service')),
    display_name TEXT NOT NULL,
    password_hash TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    disabled_at BIGINT,
    generation BIGINT NOT NULL
);

-- environment and folder are a name or '*'.
CREATE TABLE grants (
    user_id TEXT NOT NULL REFERENCES users (id),
    role TEXT NOT NULL,
    environment TEXT NOT NULL,
    folder TEXT NOT NULL,
    granted_at BIGINT NOT NULL,
    granted_by TEXT NOT NULL,
    PRIMARY KEY (user_id, role, environment, folder)
);

-- The only token there was belonged to nobody; now it is one of the user admin.
INSERT INTO users (id, name, kind, display_name, password_hash, created_at, created_by, disabled_at, generation)
SELECT 'usr_admin', 'admin', 'person', '', NULL, t.first_at, 'promptgate', NULL, 1
FROM (SELECT MIN(created_at) AS first_at, COUNT(*) AS tokens FROM tokens) AS t
WHERE t.tokens > 0;
INSERT INTO grants (user_id, role, environment, folder, granted_at, granted_by)
SELECT 'usr_admin', 'admin', '*', '*', created_at, 'promptgate' FROM users WHERE id = 'usr_admin';

CREATE TABLE user_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);
INSERT INTO user_tokens (id, user_id, name, digest, created_at, created_by)
SELECT id, 'usr_admin', name, digest, created_at, 'promptgate' FROM tokens;
DROP TABLE tokens;
ALTER TABLE user_tokens RENAME TO tokens;
CREATE INDEX tokens_by_user ON tokens (user_id);
-- Names are unique among the tokens of a user that still work or only expired.
CREATE UNIQUE INDEX tokens_by_name ON tokens (user_id, name) WHERE revoked_at IS NULL;

-- Who wrote with that token is the user admin as well: nobody may approve their own version under another name.
UPDATE prompts SET created_by = 'admin' WHERE created_by = 'bootstrap';
UPDATE versions SET author = 'admin' WHERE author = 'bootstrap';
UPDATE deployments SET actor = 'admin' WHERE actor = 'bootstrap';
UPDATE keys SET created_by = 'admin' WHERE created_by = 'bootstrap';

-- By which token, in which request. The log itself stays as it was written.
ALTER TABLE audit ADD COLUMN actor_id TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN token_id TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
