-- What is known of each asked (scope, identity, pipeline), with its place in the question. In the way is the job of
-- the source that runs or has its file on its way: not always the newest, which may have been cancelled meanwhile.
-- Elsewhere: a job of it that is not over and belongs to another pipeline.
WITH asked(at, scope, identity, pipeline) AS (ROWS)
SELECT asked.at AS at,
       s.id AS source, s.version, s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns,
       s.digest, s.digest_version, s.presence,
       t.version AS taken_version, t.job AS taken_job, t.started AS taken_started, t.list_run AS taken_list_run,
       j.version AS job_version, j.state AS job_state, j.op AS job_op, j.priority AS job_priority, j.run_at AS job_run_at,
       j.executions AS job_executions, j.deferrals AS job_deferrals, j.moved_from AS job_moved_from,
       j.run AS job_run, j.line AS job_line, j.repo AS job_repo,
       j.reason IS 'vanished' OR (j.state IS 'failed' AND j.error_kind IS 'vanished') AS job_vanished,
       j.reason IS 'duplicate' AS job_duplicate,
       coalesce((SELECT r.id FROM jobs AS r
        WHERE r.source = s.id AND r.pipeline = t.pipeline AND r.state = 'running'),
       (SELECT m.id FROM dispositions AS w CROSS JOIN jobs AS m ON m.id = w.job
        WHERE m.source = s.id AND m.pipeline = t.pipeline)) AS in_the_way,
       d.dev AS d_dev, d.inode AS d_inode, d.size AS d_size, d.mtime_ns AS d_mtime_ns, d.ctime_ns AS d_ctime_ns,
       EXISTS (SELECT 1 FROM jobs AS o INDEXED BY jobs_source
                 WHERE o.source = s.id AND o.pipeline <> asked.pipeline
                     AND o.state IN ('pending', 'running', 'retrying')) AS elsewhere
FROM asked
CROSS JOIN sources AS s ON s.scope = asked.scope AND s.identity = asked.identity
LEFT JOIN taken AS t ON t.source = s.id AND t.pipeline = asked.pipeline
LEFT JOIN jobs AS j ON j.id = t.job
LEFT JOIN dispositions AS d ON d.job = t.job
