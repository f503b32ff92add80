-- Runs over lists: bound to their input, resumed at their line, and followed until the jobs of their lines are over.

-- What makes two runs runs of the same list: its name, or where nobody gave one, where it comes from. It outlives the
-- runs, so that pruning never makes a later run the first one.
CREATE TABLE lists (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    first_read_at INTEGER                -- when a run first came to the end of its input; NULL: none did yet
);

ALTER TABLE runs ADD COLUMN list INTEGER;                        -- NULL: a scan
ALTER TABLE runs ADD COLUMN dry_run INTEGER NOT NULL DEFAULT 0 CHECK (dry_run IN (0, 1));
ALTER TABLE runs ADD COLUMN delete_missing INTEGER NOT NULL DEFAULT 0 CHECK (delete_missing IN (0, 1));
-- Whether there is more of the input to read. A run without more is active until its jobs are over, and yet lets another
-- one of its name begin.
ALTER TABLE runs ADD COLUMN reading INTEGER NOT NULL DEFAULT 1 CHECK (reading IN (0, 1));
-- Who reads: a token, and the name of a file that this process holds locked for as long as it lives.
ALTER TABLE runs ADD COLUMN holder TEXT;
-- The checkpoint beside `position`, which is a line here: so many bytes of the input, and their digest.
ALTER TABLE runs ADD COLUMN checkpoint_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN input_bytes INTEGER NOT NULL DEFAULT 0 CHECK (input_bytes >= 0);
ALTER TABLE runs ADD COLUMN input_digest BLOB;
ALTER TABLE runs ADD COLUMN batch INTEGER NOT NULL DEFAULT 0 CHECK (batch >= 0);
-- Lines that became no job, beside `skipped`.
ALTER TABLE runs ADD COLUMN bad_lines INTEGER NOT NULL DEFAULT 0 CHECK (bad_lines >= 0);
ALTER TABLE runs ADD COLUMN failed_lines INTEGER NOT NULL DEFAULT 0 CHECK (failed_lines >= 0);
ALTER TABLE runs ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0 CHECK (duplicates >= 0);   -- among `skipped`
-- Among `enqueued`: deletes of what the list no longer names.
ALTER TABLE runs ADD COLUMN deletes INTEGER NOT NULL DEFAULT 0 CHECK (deletes >= 0);
-- Its jobs, by deltas in the transactions that move them.
ALTER TABLE runs ADD COLUMN jobs_open INTEGER NOT NULL DEFAULT 0 CHECK (jobs_open >= 0);
ALTER TABLE runs ADD COLUMN jobs_completed INTEGER NOT NULL DEFAULT 0 CHECK (jobs_completed >= 0);
ALTER TABLE runs ADD COLUMN jobs_failed INTEGER NOT NULL DEFAULT 0 CHECK (jobs_failed >= 0);
ALTER TABLE runs ADD COLUMN jobs_skipped INTEGER NOT NULL DEFAULT 0 CHECK (jobs_skipped >= 0);
ALTER TABLE runs ADD COLUMN jobs_cancelled INTEGER NOT NULL DEFAULT 0 CHECK (jobs_cancelled >= 0);

-- Of a cancelled run: its jobs below this number are still to be looked at, and cancelled if they wait. NULL: none.
ALTER TABLE runs ADD COLUMN cancelling INTEGER CHECK (cancelling IS NULL OR state = 'cancelled');

-- At most one active scan of a watch.
DROP INDEX runs_active;
CREATE UNIQUE INDEX runs_active ON runs (name) WHERE list IS NULL AND state IN ('running', 'paused');
-- At most one run of a list is read, unless the list is a standard input to which nobody gave a name.
CREATE UNIQUE INDEX runs_reading ON runs (list)
    WHERE reading = 1 AND state IN ('running', 'paused') AND list IS NOT NULL
        AND (name IS NOT NULL OR input_kind = 'file');
CREATE INDEX runs_unfinished ON runs (list, id)
    WHERE reading = 1 AND state IN ('running', 'paused') AND list IS NOT NULL;
-- Few or none: whose jobs are held back, and whose are still to be cancelled.
CREATE INDEX runs_paused ON runs (id) WHERE state = 'paused';
CREATE INDEX runs_cancelling ON runs (id) WHERE cancelling IS NOT NULL;

-- Lines with which something is wrong: `bad` ones can't be understood, `failed` ones can't be done.
CREATE TABLE run_lines (
    run     INTEGER NOT NULL,
    line    INTEGER NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('bad', 'failed')),
    path    BLOB,
    op      TEXT,
    repo    TEXT,
    text    BLOB NOT NULL,               -- the line, cut
    message TEXT NOT NULL,
    PRIMARY KEY (run, line)
) WITHOUT ROWID;

-- Records of changesets, which are kept with their run and never processed.
CREATE TABLE run_changesets (
    run       INTEGER NOT NULL,
    line      INTEGER NOT NULL,
    repo      TEXT,
    changeset TEXT NOT NULL CHECK (json_valid(changeset)),
    PRIMARY KEY (run, line)
) WITHOUT ROWID;

-- Which list named a source last, and in which run: what a later run of the list does not name is missing.
ALTER TABLE taken ADD COLUMN list INTEGER;
ALTER TABLE taken ADD COLUMN list_run INTEGER;
CREATE INDEX taken_list ON taken (list, list_run) WHERE list IS NOT NULL;

ALTER TABLE jobs ADD COLUMN run INTEGER;
ALTER TABLE jobs ADD COLUMN line INTEGER;
ALTER TABLE jobs ADD COLUMN repo TEXT;
-- The file that holds the content, where that is not the source's own path.
ALTER TABLE jobs ADD COLUMN content BLOB;
CREATE INDEX jobs_content ON jobs (content) WHERE content IS NOT NULL;
-- The paused run for whose sake it is held back.
ALTER TABLE jobs ADD COLUMN held_by INTEGER;
CREATE INDEX jobs_run ON jobs (run, id) WHERE run IS NOT NULL;
CREATE INDEX jobs_held ON jobs (held_by) WHERE held_by IS NOT NULL;

DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (pipeline, priority, run_at, id)
    WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2;
DROP INDEX jobs_suspect;
CREATE INDEX jobs_suspect ON jobs (pipeline, run_at, id)
    WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2;
