-- Plans get better while they are served. Only BIGINT, TEXT and BLOB: the same text serves SQLite and PostgreSQL.

-- `effort` is quick or best; `raw_bytes` is what the frames restore; `cpu_ms` is what all encodings of the plan took.
ALTER TABLE depot_plans ADD COLUMN effort TEXT NOT NULL DEFAULT 'quick';
ALTER TABLE depot_plans ADD COLUMN raw_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE depot_plans ADD COLUMN cpu_ms BIGINT NOT NULL DEFAULT 0;

-- Frames of plans that a better one replaced: hosts that began with the older plan are served them until then.
CREATE TABLE depot_retired_frames (
    target   TEXT   NOT NULL,
    base     TEXT   NOT NULL,
    frame    BLOB   NOT NULL,
    bytes    BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    PRIMARY KEY (target, base, frame)
);
CREATE INDEX depot_retired_frames_by_until ON depot_retired_frames (until_ms);

-- Which coordinator makes which plan, and how far it is. A row that is not renewed expires.
CREATE TABLE depot_plan_leases (
    target      TEXT   NOT NULL,
    base        TEXT   NOT NULL,
    effort      TEXT   NOT NULL,
    holder      TEXT   NOT NULL,
    expires_ms  BIGINT NOT NULL,
    frames_done BIGINT NOT NULL,
    frames      BIGINT NOT NULL,
    PRIMARY KEY (target, base)
);
