-- The queue's tables. Times are integer milliseconds since the epoch, paths are BLOBs, names of states,
-- operations and reasons are the words that people see. The CHECKs repeat what the code promises, so that a
-- mistake in it ends as an error and not as a stranded row.

-- Key-value state: the system's own (keys that begin with "ingestd.") and a person's.
CREATE TABLE kv (
    key        TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

-- One row for each start of a daemon. A lease belongs to one of them.
CREATE TABLE boots (
    id         INTEGER PRIMARY KEY,
    token      BLOB NOT NULL UNIQUE CHECK (length(token) = 16),
    pid        INTEGER NOT NULL,
    version    TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    stopped_at INTEGER                   -- NULL: it runs, or died
);

-- Every pipeline that ever had a job or was paused, by name.
CREATE TABLE pipelines (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1))
);

-- Every watch that ever fed the queue. `definition` is set for those that were made with `watch add`: a JSON
-- object with the keys of the configuration file.
CREATE TABLE watches (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    root       BLOB NOT NULL,
    definition TEXT CHECK (definition IS NULL OR json_valid(definition)),
    paused     INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    created_at INTEGER NOT NULL
);

-- What is known about each file (or other source), for as long as it exists. `scope` is the watch's id, 0 for
-- absolute paths, -1 for identities that the caller chose; `identity` is the path relative to the root, the
-- absolute path, or the caller's key. `path` is set where the identity does not tell it (scope -1).
CREATE TABLE sources (
    id             INTEGER PRIMARY KEY,
    scope          INTEGER NOT NULL,
    identity       BLOB NOT NULL,
    path           BLOB,
    dev            INTEGER,
    inode          INTEGER,
    size           INTEGER,
    mtime_ns       INTEGER,
    ctime_ns       INTEGER,
    digest         BLOB,                 -- algorithm byte and digest of the content of version digest_version
    digest_version INTEGER,
    version        INTEGER NOT NULL CHECK (version >= 1),
    presence       TEXT NOT NULL DEFAULT 'present' CHECK (presence IN ('present', 'vanished', 'consumed')),
    gone_at        INTEGER,
    UNIQUE (scope, identity),
    CHECK ((presence = 'present') = (gone_at IS NULL)),
    CHECK ((scope = -1) = (path IS NOT NULL)),
    CHECK ((digest IS NULL) = (digest_version IS NULL))
);
CREATE INDEX sources_gone ON sources (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE jobs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    source           INTEGER NOT NULL,
    pipeline         INTEGER NOT NULL,
    version          INTEGER NOT NULL CHECK (version >= 1),
    op               TEXT NOT NULL CHECK (op IN ('add', 'modify', 'delete')),
    priority         INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 4),
    state            TEXT NOT NULL CHECK (state IN
                         ('pending', 'running', 'retrying', 'completed', 'failed', 'cancelled', 'skipped')),
    run_at           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    first_started_at INTEGER,            -- of the first execution since it was enqueued or reopened
    started_at       INTEGER,            -- of the newest execution
    finished_at      INTEGER,
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),       -- spent
    deferrals        INTEGER NOT NULL DEFAULT 0 CHECK (deferrals >= 0),
    executions       INTEGER NOT NULL DEFAULT 0 CHECK (executions >= attempt),
    crashes          INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0),       -- in a row
    crashes_alone    INTEGER NOT NULL DEFAULT 0 CHECK (crashes_alone BETWEEN 0 AND crashes),
    fence            INTEGER NOT NULL DEFAULT 0 CHECK (fence >= 0),
    boot             INTEGER,
    lease_deadline   INTEGER,            -- CLOCK_BOOTTIME of that boot, milliseconds
    blocked_by       INTEGER,            -- the running job of an older version of the same source
    reason           TEXT CHECK (reason IN ('superseded', 'unchanged', 'duplicate', 'vanished')),
    superseded_by    INTEGER,
    size             INTEGER,
    digest           BLOB,
    baseline         BLOB,               -- the digest with which the version before completed while this one waited for it
    metadata         TEXT CHECK (metadata IS NULL OR json_valid(metadata)),
    error_kind       TEXT,
    error_message    TEXT,
    error_permanent  INTEGER CHECK (error_permanent IN (0, 1)),
    CHECK ((state = 'running') = (boot IS NOT NULL)),
    CHECK ((boot IS NULL) = (lease_deadline IS NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled', 'skipped')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'skipped') = (reason IS NOT NULL)),
    CHECK (state NOT IN ('failed', 'retrying') OR error_kind IS NOT NULL),
    CHECK ((reason IS 'superseded') = (superseded_by IS NOT NULL)),
    CHECK (blocked_by IS NULL OR state = 'pending')
);
-- The lease reads this, one range for each pipeline and level, in order. Suspects (two crashes in a row) have
-- their own, because they run alone.
CREATE INDEX jobs_due ON jobs (pipeline, priority, run_at, id)
    WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2;
CREATE INDEX jobs_suspect ON jobs (pipeline, run_at, id)
    WHERE state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes >= 2;
-- No two executions of one source and pipeline at once; also what recovery and renewal read.
CREATE UNIQUE INDEX jobs_running ON jobs (source, pipeline) WHERE state = 'running';
-- `boot IS NOT NULL` says the same as `state = 'running'`.
CREATE INDEX jobs_leased ON jobs (boot, lease_deadline) WHERE boot IS NOT NULL;
CREATE INDEX jobs_blocked ON jobs (blocked_by) WHERE blocked_by IS NOT NULL;
-- Every job of a source, so that a source is forgotten only when none is left.
CREATE INDEX jobs_source ON jobs (source);
-- Pruning, lists by state, and failures.
CREATE INDEX jobs_final ON jobs (state, finished_at)
    WHERE state IN ('completed', 'failed', 'cancelled', 'skipped');
CREATE INDEX jobs_retrying ON jobs (state) WHERE state = 'retrying';

-- The newest version of each source that each pipeline was given, and the job that it became. It outlives the
-- job, so that pruning never makes a file look new.
CREATE TABLE taken (
    source   INTEGER NOT NULL,
    pipeline INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    job      INTEGER NOT NULL,
    started  INTEGER NOT NULL DEFAULT 0 CHECK (started IN (0, 1)),   -- some version was ever started
    PRIMARY KEY (source, pipeline)
) WITHOUT ROWID;

-- The history: one row for each execution that ended, spent or not, in the order of their ends. It outlives
-- its job and so repeats what analytics need.
CREATE TABLE attempts (
    id            INTEGER PRIMARY KEY,
    job           INTEGER NOT NULL,
    seq           INTEGER NOT NULL CHECK (seq >= 0),
    source        INTEGER NOT NULL,
    pipeline      INTEGER NOT NULL,
    priority      INTEGER NOT NULL,
    outcome       TEXT NOT NULL CHECK (outcome IN
                      ('completed', 'retry', 'failed', 'deferred', 'interrupted', 'cancelled', 'skipped', 'crashed',
                       'reopened')),
    spent         INTEGER NOT NULL CHECK (spent IN (0, 1)),
    due_at        INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    code          INTEGER,               -- exit code or HTTP status
    error_kind    TEXT,
    error_message TEXT
);
CREATE INDEX attempts_job ON attempts (job, seq);

-- The tail of what an execution printed or was answered.
CREATE TABLE outputs (
    job    INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    output BLOB NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;

-- A processed file on its way to where `on_success` or `on_failure` send it. The intent is committed before the
-- first rename, so that a crash in between tells where to go on.
CREATE TABLE dispositions (
    job      INTEGER PRIMARY KEY,
    path     BLOB NOT NULL,              -- where the file was
    private  BLOB NOT NULL,              -- the name beside it that it has on the way
    target   BLOB,                       -- where it goes; NULL: away
    verdict  TEXT NOT NULL CHECK (verdict IN ('completed', 'failed')),
    error_kind TEXT, error_message TEXT,
    dev INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL
);

-- How many jobs are in each state: kept by deltas in the transactions that move the jobs.
CREATE TABLE counters (
    pipeline INTEGER NOT NULL,
    state    TEXT NOT NULL,
    priority INTEGER NOT NULL,
    n        INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (pipeline, state, priority)
) WITHOUT ROWID;

-- Ends of executions in slots of ten seconds, for the rates.
CREATE TABLE rates (
    slot      INTEGER NOT NULL,          -- milliseconds since the epoch, a multiple of 10 000
    pipeline  INTEGER NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    retried   INTEGER NOT NULL DEFAULT 0,
    busy_ms   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (slot, pipeline)
) WITHOUT ROWID;
