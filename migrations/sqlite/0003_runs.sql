-- Runs: bounded operations with progress. So far, scans of watches.

CREATE TABLE runs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT,                           -- of a scan: its watch's
    type         TEXT NOT NULL CHECK (type IN ('initial', 'incremental', 'recovery')),
    state        TEXT NOT NULL CHECK (state IN ('running', 'paused', 'completed', 'failed', 'cancelled')),
    input_kind   TEXT NOT NULL,                  -- 'watch': the tree under input_path
    input_path   BLOB,
    pipeline     TEXT NOT NULL,
    total        INTEGER,                        -- NULL: not known before the end
    processed    INTEGER NOT NULL DEFAULT 0 CHECK (processed >= 0),
    enqueued     INTEGER NOT NULL DEFAULT 0 CHECK (enqueued >= 0),
    skipped      INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    -- The checkpoint: how far it has come in its input, and the newest job that `enqueued` counts. Jobs are made
    -- between two of its writes; after a crash those that came later are counted by their numbers.
    position     INTEGER NOT NULL DEFAULT 0 CHECK (position >= 0),
    newest_job   INTEGER NOT NULL,
    current_path BLOB,
    rate_per_s   REAL NOT NULL DEFAULT 0,
    started_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    duration_ms  INTEGER NOT NULL DEFAULT 0 CHECK (duration_ms >= 0),
    last_error   TEXT,
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (input_kind <> 'watch' OR (name IS NOT NULL AND input_path IS NOT NULL))
);
-- At most one active run of a name. Runs without a name may be any number.
CREATE UNIQUE INDEX runs_active ON runs (name) WHERE state IN ('running', 'paused');
-- Pruning.
CREATE INDEX runs_final ON runs (finished_at) WHERE finished_at IS NOT NULL;

-- When a scan first went through the watch's root; NULL: none did yet. It outlives the run, so that pruning never makes
-- a later scan the first one.
ALTER TABLE watches ADD COLUMN first_scanned_at INTEGER;
-- Watches of which files are known were scanned before there were runs.
UPDATE watches SET first_scanned_at = created_at
WHERE EXISTS (SELECT 1 FROM sources WHERE sources.scope = watches.id);
