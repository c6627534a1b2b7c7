-- The depot: where chunks lie, which packages are whole, which transfer plans are ready, which releases exist.
-- Digests that people look up are TEXT (sha256:...); those that come by the thousand are BLOBs.

-- A package is here once all of it is stored. `index_digest` is of the index object as it was stored.
CREATE TABLE packages (
    digest       TEXT   PRIMARY KEY,
    files        BIGINT NOT NULL,
    tree_bytes   BIGINT NOT NULL,
    index_digest BLOB   NOT NULL,
    pushed_ms    BIGINT NOT NULL,
    pushed_by    TEXT   NOT NULL
);

CREATE TABLE depot_packs (
    digest    BLOB   PRIMARY KEY,
    bytes     BIGINT NOT NULL,
    stored_ms BIGINT NOT NULL
);

-- A chunk lies in a frame of a pack, at an offset of the frame's raw bytes. Rows whose bytes turned out damaged are removed.
CREATE TABLE depot_chunks (
    digest       BLOB   PRIMARY KEY,
    pack         BLOB   NOT NULL,
    frame_offset BIGINT NOT NULL,
    frame_len    BIGINT NOT NULL,
    raw_offset   BIGINT NOT NULL,
    raw_len      BIGINT NOT NULL
);
CREATE INDEX depot_chunks_by_frame ON depot_chunks (pack, frame_offset);

-- Contents of several chunks that were once put together and had their digest: `recipe` is the SHA-256 of the
-- chunks' digests. A fact that never changes; saves reading them again at the next push.
CREATE TABLE depot_contents (
    digest BLOB PRIMARY KEY,
    recipe BLOB NOT NULL
);

-- Transfer plans that are ready. An empty base: a cold install.
CREATE TABLE depot_plans (
    target         TEXT   NOT NULL,
    base           TEXT   NOT NULL,
    plan           BLOB   NOT NULL,
    manifest_frame BLOB   NOT NULL,
    wire_bytes     BIGINT NOT NULL,
    made_ms        BIGINT NOT NULL,
    PRIMARY KEY (target, base)
);

-- The frames that a plan names, the manifest's among them.
CREATE TABLE depot_plan_frames (
    target TEXT NOT NULL,
    base   TEXT NOT NULL,
    frame  BLOB NOT NULL,
    PRIMARY KEY (target, base, frame)
);
CREATE INDEX depot_plan_frames_by_frame ON depot_plan_frames (frame);

-- Signed releases. `statement`, `public_key` and `signature` are what the release engineer made, byte by byte.
CREATE TABLE releases (
    app        TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    statement  BLOB   NOT NULL,
    public_key BLOB   NOT NULL,
    signature  BLOB   NOT NULL,
    created_ms BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    PRIMARY KEY (app, version)
);

CREATE TABLE release_packages (
    app      TEXT NOT NULL,
    version  TEXT NOT NULL,
    platform TEXT NOT NULL,
    package  TEXT NOT NULL REFERENCES packages (digest),
    PRIMARY KEY (app, version, platform)
);
CREATE INDEX release_packages_by_package ON release_packages (package);
