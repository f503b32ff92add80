-- What is known of each asked (scope, identity, pipeline), with its place in the question.
WITH asked(at, scope, identity, pipeline) AS (ROWS)
SELECT asked.at AS at,
       s.id AS source, s.version, s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns,
       s.digest, s.digest_version, s.presence,
       t.version AS taken_version, t.job AS taken_job, t.started AS taken_started,
       j.state AS job_state, j.op AS job_op, j.priority AS job_priority, j.run_at AS job_run_at,
       j.executions AS job_executions, j.deferrals AS job_deferrals, j.blocked_by AS job_blocked_by,
       j.reason AS job_reason,
       d.dev AS d_dev, d.inode AS d_inode, d.size AS d_size, d.mtime_ns AS d_mtime_ns, d.ctime_ns AS d_ctime_ns
FROM asked
CROSS JOIN sources AS s ON s.scope = asked.scope AND s.identity = asked.identity
LEFT JOIN taken AS t ON t.source = s.id AND t.pipeline = asked.pipeline
LEFT JOIN jobs AS j ON j.id = t.job
LEFT JOIN dispositions AS d ON d.job = t.job
