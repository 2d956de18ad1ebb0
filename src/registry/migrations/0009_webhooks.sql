-- Who is told of what. The secret signs what is sent, so it is here as it is; it is shown once.
-- lease_by: the node that delivers to it at present.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    description TEXT NOT NULL,
    events TEXT NOT NULL,
    environment TEXT NOT NULL,
    folder TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    lease_by TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0
);

-- What happened, for as long as somebody is to be told: written in the transaction in which it happened. seq is the number of
-- its entry in the audit log.
CREATE TABLE webhook_events (
    seq BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    prompts TEXT NOT NULL,
    body TEXT NOT NULL,
    at BIGINT NOT NULL
);

CREATE TABLE webhook_deliveries (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id),
    seq BIGINT NOT NULL REFERENCES webhook_events (seq),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    last_at BIGINT,
    status BIGINT,
    error TEXT NOT NULL,
    took_us BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, seq)
);
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (state, next_at);
