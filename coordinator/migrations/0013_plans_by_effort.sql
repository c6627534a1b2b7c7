-- A quick plan stays beside the best one: hosts on a limited link are served the best, all others the quick one.

CREATE TABLE depot_plans_by_effort (
    target         TEXT   NOT NULL,
    base           TEXT   NOT NULL,
    effort         TEXT   NOT NULL,
    plan           BLOB   NOT NULL,
    manifest_frame BLOB   NOT NULL,
    wire_bytes     BIGINT NOT NULL,
    raw_bytes      BIGINT NOT NULL,
    cpu_ms         BIGINT NOT NULL,
    made_ms        BIGINT NOT NULL,
    PRIMARY KEY (target, base, effort)
);
INSERT INTO depot_plans_by_effort (target, base, effort, plan, manifest_frame, wire_bytes, raw_bytes, cpu_ms, made_ms)
    SELECT target, base, effort, plan, manifest_frame, wire_bytes, raw_bytes, cpu_ms, made_ms FROM depot_plans;

CREATE TABLE depot_frames_by_effort (
    target TEXT NOT NULL,
    base   TEXT NOT NULL,
    effort TEXT NOT NULL,
    frame  BLOB NOT NULL,
    PRIMARY KEY (target, base, effort, frame)
);
INSERT INTO depot_frames_by_effort (target, base, effort, frame)
    SELECT f.target, f.base, p.effort, f.frame
    FROM depot_plan_frames f JOIN depot_plans p ON p.target = f.target AND p.base = f.base;

DROP TABLE depot_plan_frames;
DROP TABLE depot_plans;
ALTER TABLE depot_plans_by_effort RENAME TO depot_plans;
ALTER TABLE depot_frames_by_effort RENAME TO depot_plan_frames;
CREATE INDEX depot_plan_frames_by_frame ON depot_plan_frames (frame);

-- No plan is replaced any more: whoever began with one goes on with it.
DROP TABLE depot_retired_frames;

-- Leases are of one effort, too. Whoever held one takes it again.
DROP TABLE depot_plan_leases;
CREATE TABLE depot_plan_leases (
    target      TEXT   NOT NULL,
    base        TEXT   NOT NULL,
    effort      TEXT   NOT NULL,
    holder      TEXT   NOT NULL,
    expires_ms  BIGINT NOT NULL,
    frames_done BIGINT NOT NULL,
    frames      BIGINT NOT NULL,
    begun_ms    BIGINT NOT NULL,
    PRIMARY KEY (target, base, effort)
);
