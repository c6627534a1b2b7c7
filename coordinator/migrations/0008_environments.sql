-- Environments: what was applied, how far its run is, and which rollouts it has started. Only BIGINT, TEXT and BLOB: the same
-- text serves SQLite and PostgreSQL.

-- `file` is the fleet.toml that was applied last, `standing` the one whose applications all stood, whole, before; `run` counts what was
-- applied; `revision` fences: who writes names the one they read.
CREATE TABLE environments (
    name       TEXT   PRIMARY KEY,
    run        BIGINT NOT NULL,
    file       TEXT   NOT NULL,
    standing   TEXT,
    state      TEXT   NOT NULL,
    reason     TEXT,
    applied_by TEXT   NOT NULL,
    applied_ms BIGINT NOT NULL,
    ended_ms   BIGINT,
    revision   BIGINT NOT NULL
);

-- Applications that have stood, whole, in the run.
CREATE TABLE environment_settled (
    environment TEXT   NOT NULL REFERENCES environments (name),
    app         TEXT   NOT NULL,
    PRIMARY KEY (environment, app)
);

-- The run of an environment for which a rollout was started, NULL: none; and whether it is for hosts that came after the run, 1 or NULL.
ALTER TABLE rollouts ADD COLUMN environment TEXT;
ALTER TABLE rollouts ADD COLUMN environment_run BIGINT;
ALTER TABLE rollouts ADD COLUMN addition BIGINT;
CREATE INDEX rollouts_by_environment ON rollouts (environment, environment_run);
