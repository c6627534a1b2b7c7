-- What the checks of rollouts have said, and what outside listeners are told. Only BIGINT, TEXT and BLOB: the same text serves
-- SQLite and PostgreSQL.

-- One row for each check of each batch that was asked. `first_ms` and `newest_ms` are of the samples since an operator resumed the
-- rollout last; `outcome` (pass, fail or inconclusive) and `words` are of the newest; `failure` says why the rollout failed by it.
CREATE TABLE rollout_checks (
    rollout   TEXT   NOT NULL REFERENCES rollouts (id),
    batch     BIGINT NOT NULL,
    name      TEXT   NOT NULL,
    samples   BIGINT NOT NULL,
    passed    BIGINT NOT NULL,
    first_ms  BIGINT,
    newest_ms BIGINT,
    outcome   TEXT,
    words     TEXT,
    failure   TEXT,
    PRIMARY KEY (rollout, batch, name)
);

-- What ran on a host at a time, and where a release has been.
CREATE INDEX history_by_host_number ON history (host, number);
CREATE INDEX history_by_release ON history (app, to_version, number);

-- Web addresses that are told of what rollouts do. `events` is JSON, an empty list for all; `error` is of the newest attempt, NULL
-- where it succeeded.
CREATE TABLE notify_listeners (
    name         TEXT   PRIMARY KEY,
    url          TEXT   NOT NULL,
    secret       TEXT   NOT NULL,
    events       TEXT   NOT NULL,
    created_ms   BIGINT NOT NULL,
    created_by   TEXT   NOT NULL,
    dropped      BIGINT NOT NULL,
    delivered_ms BIGINT,
    error        TEXT
);

-- What they have still to be told, oldest first. `due_ms` is when the next attempt is.
CREATE TABLE notify_queue (
    number     BIGINT PRIMARY KEY,
    listener   TEXT   NOT NULL REFERENCES notify_listeners (name),
    id         TEXT   NOT NULL,
    event      TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    tries      BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    due_ms     BIGINT NOT NULL
);
CREATE INDEX notify_queue_by_listener ON notify_queue (listener, number);
