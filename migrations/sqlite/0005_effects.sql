-- Steps that a processor takes once, and how far a job has come.

CREATE TABLE effects (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    job      INTEGER NOT NULL,
    -- Which step of the job: a digest of kind and context. The key says the same to the other side; but a restore gives
    -- jobs new keys, and a step that is recorded stays the one that it was.
    step     BLOB NOT NULL CHECK (length(step) = 32),
    key      BLOB NOT NULL CHECK (length(key) = 32),
    kind     TEXT NOT NULL,
    context  TEXT NOT NULL,              -- canonical JSON
    -- `begun`: the intent is committed. `unknown`: whoever began it ended without saying how it came out.
    state    TEXT NOT NULL CHECK (state IN ('begun', 'done', 'unknown')),
    fence    INTEGER NOT NULL,           -- of the lease under which it was begun last
    result   TEXT CHECK (result IS NULL OR json_valid(result)),
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    UNIQUE (job, step),
    CHECK ((state = 'begun') = (ended_at IS NULL)),
    CHECK (result IS NULL OR state = 'done')
);
CREATE INDEX effects_begun ON effects (begun_at) WHERE state = 'begun';
CREATE INDEX effects_unknown ON effects (job) WHERE state = 'unknown';

-- The effect that a file on its way is.
ALTER TABLE dispositions ADD COLUMN effect INTEGER;

-- The stage of a job, and what the other side answered.
ALTER TABLE jobs ADD COLUMN stage TEXT;
ALTER TABLE jobs ADD COLUMN external_id TEXT;
ALTER TABLE jobs ADD COLUMN result TEXT;
CREATE INDEX jobs_external ON jobs (external_id) WHERE external_id IS NOT NULL;

-- The idempotency key under which the other side knows a job that came to a stage: it may confirm by that.
ALTER TABLE jobs ADD COLUMN key BLOB;
CREATE INDEX jobs_key ON jobs (key) WHERE key IS NOT NULL;

-- When a job came to each of its stages.
CREATE TABLE job_stages (
    job   INTEGER NOT NULL,
    stage TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (job, stage)
) WITHOUT ROWID;
