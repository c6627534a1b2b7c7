-- Rollouts, orders, reports and what ran where. Only BIGINT, TEXT and BLOB: the same text serves SQLite and PostgreSQL.

-- `spec` is JSON; `gate` is waiting, open or baking (since `baking_ms`); `revision` fences: who writes names the one they read.
CREATE TABLE rollouts (
    number     BIGINT PRIMARY KEY,
    id         TEXT   NOT NULL UNIQUE,
    app        TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    spec       TEXT   NOT NULL,
    state      TEXT   NOT NULL,
    reason     TEXT,
    batch      BIGINT NOT NULL,
    gate       TEXT   NOT NULL,
    baking_ms  BIGINT,
    forgiven   BIGINT NOT NULL,
    started_by TEXT   NOT NULL,
    started_ms BIGINT NOT NULL,
    ended_ms   BIGINT,
    revision   BIGINT NOT NULL
);
CREATE INDEX rollouts_by_app ON rollouts (app, number);
CREATE INDEX rollouts_by_state ON rollouts (state);

-- Hosts in the order in which they switch. `generation`, `target` (JSON) and `ordered_ms` are those of the rollout's newest
-- order for the host; `failure` is JSON; `report` is the newest report that answers an order of this rollout.
CREATE TABLE rollout_hosts (
    rollout    TEXT   NOT NULL REFERENCES rollouts (id),
    position   BIGINT NOT NULL,
    batch      BIGINT NOT NULL,
    host       TEXT   NOT NULL,
    site       TEXT   NOT NULL,
    package    TEXT   NOT NULL,
    generation BIGINT,
    target     TEXT,
    ordered_ms BIGINT,
    failure    TEXT,
    report     TEXT,
    PRIMARY KEY (rollout, position)
);
CREATE UNIQUE INDEX rollout_hosts_by_host ON rollout_hosts (host, rollout);

-- Every order ever given. The newest generation of (host, app) is the one that stands. `package` and `version` are what the
-- host is to have, NULL for nothing.
CREATE TABLE orders (
    host       TEXT   NOT NULL,
    app        TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    rollout    TEXT   NOT NULL REFERENCES rollouts (id),
    target     TEXT   NOT NULL,
    package    TEXT,
    version    TEXT,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (host, app, generation)
);

-- The newest report of each application on each host. `since_ms`: since when it has said what decisions turn on.
CREATE TABLE reports (
    host        TEXT   NOT NULL,
    app         TEXT   NOT NULL,
    generation  BIGINT NOT NULL,
    sequence    BIGINT NOT NULL,
    since_ms    BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    report      TEXT   NOT NULL,
    PRIMARY KEY (host, app)
);

-- One line a switch, as hosts reported it.
CREATE TABLE history (
    number       BIGINT PRIMARY KEY,
    at_ms        BIGINT NOT NULL,
    host         TEXT   NOT NULL,
    app          TEXT   NOT NULL,
    from_package TEXT,
    from_version TEXT,
    to_package   TEXT,
    to_version   TEXT,
    rollout      TEXT,
    generation   BIGINT NOT NULL,
    reason       TEXT   NOT NULL
);
CREATE INDEX history_by_app ON history (app, number);
CREATE INDEX history_by_host ON history (host, app, number);
