-- What going live in a protected environment takes.
ALTER TABLE environments ADD COLUMN approvals BIGINT NOT NULL DEFAULT 1;
ALTER TABLE environments ADD COLUMN required_checks TEXT NOT NULL DEFAULT '[]';
ALTER TABLE environments ADD COLUMN auto_apply BIGINT NOT NULL DEFAULT 0;

-- The change that a deployment applied; break_glass marks those that went without approval.
ALTER TABLE deployments ADD COLUMN change_id BIGINT;
ALTER TABLE deployments ADD COLUMN break_glass BIGINT NOT NULL DEFAULT 0;

-- Proposed deployments. revision counts what was proposed: approvals and checks are about one revision.
CREATE TABLE changes (
    id BIGINT NOT NULL PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name),
    state TEXT NOT NULL CHECK (state IN ('draft', 'open', 'approved', 'rejected', 'applied', 'withdrawn')),
    revision BIGINT NOT NULL,
    message TEXT NOT NULL,
    proposer TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    opened_at BIGINT,
    first_approved_at BIGINT,
    applied_at BIGINT,
    applied_by TEXT,
    applied_generation BIGINT,
    preflight TEXT
);
CREATE INDEX changes_by_state ON changes (state, id);
CREATE INDEX changes_by_proposer ON changes (proposer, state);

-- base is the number of the deployment that was live when this was proposed, 0 for none; deployment the one it became.
CREATE TABLE change_deployments (
    change_id BIGINT NOT NULL REFERENCES changes (id),
    position BIGINT NOT NULL,
    prompt_id TEXT NOT NULL REFERENCES prompts (id),
    split TEXT NOT NULL,
    base BIGINT NOT NULL,
    deployment BIGINT,
    PRIMARY KEY (change_id, prompt_id)
);

CREATE TABLE change_reviews (
    change_id BIGINT NOT NULL REFERENCES changes (id),
    id BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    reviewer TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('approve', 'reject')),
    message TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (change_id, id)
);

CREATE TABLE change_comments (
    change_id BIGINT NOT NULL REFERENCES changes (id),
    id BIGINT NOT NULL,
    author TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (change_id, id)
);

CREATE TABLE change_checks (
    change_id BIGINT NOT NULL REFERENCES changes (id),
    name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'pass', 'fail')),
    url TEXT,
    summary TEXT NOT NULL,
    reporter TEXT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (change_id, name)
);
