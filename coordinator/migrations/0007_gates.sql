-- What operators say to a rollout's gates, and what closes an application to new rollouts. Only BIGINT, TEXT and BLOB: the same text
-- serves SQLite and PostgreSQL.

-- Why windows and freezes do not hold the rollout, and who said so; NULL: they do.
ALTER TABLE rollouts ADD COLUMN overridden TEXT;

-- Who has agreed to the first switch of a rollout.
CREATE TABLE rollout_approvals (
    rollout     TEXT   NOT NULL REFERENCES rollouts (id),
    operator    TEXT   NOT NULL,
    approved_ms BIGINT NOT NULL,
    PRIMARY KEY (rollout, operator)
);

-- One line each time that a failed rollout closed its application to new ones. It is closed while one of them has no `reopened_ms`.
CREATE TABLE line_stops (
    number      BIGINT PRIMARY KEY,
    app         TEXT   NOT NULL,
    rollout     TEXT   NOT NULL REFERENCES rollouts (id),
    reason      TEXT   NOT NULL,
    stopped_ms  BIGINT NOT NULL,
    reopened_ms BIGINT,
    reopened_by TEXT,
    cause       TEXT
);
CREATE INDEX line_stops_by_app ON line_stops (app, number);
