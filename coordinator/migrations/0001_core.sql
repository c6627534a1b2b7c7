-- Identities, hosts, sites, tokens, audit. Only BIGINT, TEXT and BLOB: the same text serves SQLite and PostgreSQL.
-- Times are milliseconds since 1970 (UTC); zero or NULL as each column says.

CREATE TABLE audit (
    number   BIGINT PRIMARY KEY,
    at_ms    BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    previous BLOB   NOT NULL,
    hash     BLOB   NOT NULL
);

-- The hosts behind one link. A limit of zero is none.
CREATE TABLE sites (
    name                   TEXT   PRIMARY KEY,
    limit_bytes_per_second BIGINT NOT NULL,
    created_ms             BIGINT NOT NULL
);

-- `facts` is NULL until the first session; `last_seen_ms` is written now and then, not with every heartbeat.
CREATE TABLE hosts (
    name         TEXT   PRIMARY KEY,
    site         TEXT   NOT NULL REFERENCES sites (name),
    labels       TEXT   NOT NULL,
    facts        TEXT,
    enrolled_ms  BIGINT NOT NULL,
    last_seen_ms BIGINT NOT NULL,
    revoked_ms   BIGINT
);

CREATE TABLE operators (
    name        TEXT   PRIMARY KEY,
    role        TEXT   NOT NULL,
    enrolled_ms BIGINT NOT NULL,
    revoked_ms  BIGINT
);

-- Every certificate that the authority gave to a host or an operator: one that is not here opens nothing.
CREATE TABLE certificates (
    fingerprint   BLOB   PRIMARY KEY,
    principal     TEXT   NOT NULL,
    issued_ms     BIGINT NOT NULL,
    not_after_ms  BIGINT NOT NULL,
    revoked_ms    BIGINT
);
CREATE INDEX certificates_by_principal ON certificates (principal);

-- Join tokens by the SHA-256 of their secret. `subject` is JSON: what the bearer becomes.
CREATE TABLE tokens (
    secret_digest BLOB   PRIMARY KEY,
    subject       TEXT   NOT NULL,
    uses_left     BIGINT NOT NULL,
    created_by    TEXT   NOT NULL,
    created_ms    BIGINT NOT NULL,
    expires_ms    BIGINT NOT NULL
);
