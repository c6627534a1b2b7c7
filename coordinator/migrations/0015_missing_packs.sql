-- Since when packs have been missing that rows named: one row, or none. The database may be older than the objects then.
CREATE TABLE depot_missing_packs (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    since_ms BIGINT NOT NULL
);
