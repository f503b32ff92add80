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
