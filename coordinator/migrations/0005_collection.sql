-- What the collection of the depot decides on. Only BIGINT, TEXT and BLOB: the same text serves SQLite and PostgreSQL.

-- When the package was pushed last; zero: never again since `pushed_ms`.
ALTER TABLE packages ADD COLUMN wanted_ms BIGINT NOT NULL DEFAULT 0;

-- Since when the holder makes the plan.
ALTER TABLE depot_plan_leases ADD COLUMN begun_ms BIGINT NOT NULL DEFAULT 0;

-- How often chunks were forgotten because nothing used them: a push that found them before looks again.
CREATE TABLE depot_forgettings (
    id     BIGINT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO depot_forgettings (id, number) VALUES (1, 0);
