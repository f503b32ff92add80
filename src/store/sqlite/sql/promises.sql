-- The queue's promises, as sentences about what breaks them. ?1: at most so many sentences. Nothing is grouped or sorted,
-- so that a check of any size needs no more memory than its page cache.

-- Who waits for another job will be released by it: it runs (or its file is on its way, which a next lease brings to
-- its end), and is of the same source and pipeline.
SELECT printf('job %d waits for job %d, which is not a running job of the same source: it would wait for ever',
              w.id, w.blocked_by)
FROM jobs AS w INDEXED BY jobs_blocked
    LEFT JOIN jobs AS r ON r.id = w.blocked_by
WHERE w.blocked_by IS NOT NULL
    AND ((r.state = 'running' OR r.id IN (SELECT job FROM dispositions)) AND r.source = w.source AND r.pipeline = w.pipeline) IS NOT TRUE
UNION ALL
-- Two versions of one source never wait side by side: a newer one waits behind an older whose file is on its way.
SELECT printf('jobs %d and %d wait side by side, though they are versions of one source', older.id, newer.id)
FROM jobs AS newer
    JOIN jobs AS older INDEXED BY jobs_source ON older.source = newer.source AND older.id < newer.id
WHERE older.pipeline = newer.pipeline
    AND newer.state IN ('pending', 'retrying') AND newer.blocked_by IS NULL
    AND older.state IN ('pending', 'retrying') AND older.blocked_by IS NULL
UNION ALL
-- A lease belongs to a boot that has not ended in order.
SELECT printf('job %d runs, though the daemon that leased it stopped', j.id)
FROM jobs AS j INDEXED BY jobs_leased
    JOIN boots AS b ON b.id = j.boot
WHERE j.boot IS NOT NULL AND b.stopped_at IS NOT NULL
UNION ALL
-- What was taken of a source is at least as new as each job of it, and no newer than the source.
SELECT printf('job %d is version %d of its source, which is not known to have been taken', j.id, j.version)
FROM jobs AS j
    LEFT JOIN taken AS t ON t.source = j.source AND t.pipeline = j.pipeline
WHERE t.version IS NULL OR t.version < j.version
UNION ALL
SELECT printf('version %d of source %d was taken, and the source is at version %d', t.version, t.source, s.version)
FROM taken AS t
    JOIN sources AS s ON s.id = t.source
WHERE t.version > s.version
UNION ALL
-- A job that is over has no file on its way.
SELECT printf('job %d is %s, and its file is still noted as on its way', j.id, j.state)
FROM dispositions AS d
    JOIN jobs AS j ON j.id = d.job
WHERE j.state IN ('completed', 'failed', 'cancelled', 'skipped')
UNION ALL
-- A run over a list counts its jobs: those that are open exactly, of the others those that were pruned since, too.
SELECT printf('run %d counts %d open jobs; there are %d', id, jobs_open, there)
FROM (SELECT r.id, r.jobs_open,
             (SELECT count(*) FROM jobs AS j INDEXED BY jobs_run
              WHERE j.run = r.id AND j.state IN ('pending', 'running', 'retrying')) AS there
      FROM runs AS r WHERE r.list IS NOT NULL)
WHERE jobs_open <> there
UNION ALL
SELECT printf('run %d counts %d %s jobs; there are %d', id, told, state, there)
FROM (SELECT r.id, s.state,
             CASE s.state WHEN 'completed' THEN r.jobs_completed WHEN 'failed' THEN r.jobs_failed
                          WHEN 'skipped' THEN r.jobs_skipped ELSE r.jobs_cancelled END AS told,
             (SELECT count(*) FROM jobs AS j INDEXED BY jobs_run WHERE j.run = r.id AND j.state = s.state) AS there
      FROM runs AS r CROSS JOIN (SELECT 'completed' AS state UNION ALL SELECT 'failed' UNION ALL SELECT 'skipped'
                                 UNION ALL SELECT 'cancelled') AS s
      WHERE r.list IS NOT NULL)
WHERE told < there
UNION ALL
-- What leads out of a run is its reader, or its last open job.
SELECT printf('run %d is %s, though its input is read and none of its jobs is open: it would never end', id, state)
FROM runs WHERE list IS NOT NULL AND reading = 0 AND jobs_open = 0 AND state IN ('running', 'paused')
UNION ALL
SELECT printf('line %d of run %d is noted, and the run does not exist', line, run)
FROM run_lines WHERE run NOT IN (SELECT id FROM runs)
UNION ALL
SELECT printf('the changeset of line %d of run %d is noted, and the run does not exist', line, run)
FROM run_changesets WHERE run NOT IN (SELECT id FROM runs)
UNION ALL
-- What is referred to exists. (No foreign keys: they would cost every insert, and these rows are never deleted first.)
SELECT printf('job %d refers to source %d, which does not exist', id, source)
FROM jobs WHERE source NOT IN (SELECT id FROM sources)
UNION ALL
SELECT printf('job %d refers to pipeline %d, which does not exist', id, pipeline)
FROM jobs WHERE pipeline NOT IN (SELECT id FROM pipelines)
UNION ALL
SELECT printf('what was taken of source %d is noted, and the source does not exist', source)
FROM taken WHERE source NOT IN (SELECT id FROM sources)
LIMIT ?1
