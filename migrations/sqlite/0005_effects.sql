-- Steps that a processor takes once, and how far a job has come.

CREATE TABLE effects (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    job      INTEGER NOT NULL,
    key      BLOB NOT NULL CHECK (length(key) = 32),
    kind     TEXT NOT NULL,
    context  TEXT NOT NULL,              -- canonical JSON
    -- `begun`: the intent is committed. `unknown`: whoever began it ended without saying how it came out.
    state    TEXT NOT NULL CHECK (state IN ('begun', 'done', 'unknown')),
    fence    INTEGER NOT NULL,           -- of the lease under which it was begun last
    result   TEXT CHECK (result IS NULL OR json_valid(result)),
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    UNIQUE (job, key),
    CHECK ((state = 'begun') = (ended_at IS NULL)),
    CHECK (result IS NULL OR state = 'done')
);
CREATE INDEX effects_begun ON effects (begun_at) WHERE state = 'begun';

-- The stage of a job, and what the other side answered.
ALTER TABLE jobs ADD COLUMN stage TEXT;
ALTER TABLE jobs ADD COLUMN external_id TEXT;
ALTER TABLE jobs ADD COLUMN result TEXT;
CREATE INDEX jobs_external ON jobs (external_id) WHERE external_id IS NOT NULL;

-- When a job came to each of its stages.
CREATE TABLE job_stages (
    job   INTEGER NOT NULL,
    stage TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (job, stage)
) WITHOUT ROWID;
