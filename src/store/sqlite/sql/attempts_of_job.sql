-- The newest executions of one job with what they printed, newest first.
-- ?1: the job, ?2: how many. A `reopened` row shares the number of the execution before it, not its output.
SELECT a.id, a.job, a.seq, p.name AS pipeline, s.scope, w.name AS watch, w.root,
       coalesce(j.identity, s.identity) AS identity, s.path AS source_path,
       a.outcome, a.spent, a.started_at, a.finished_at, a.duration_ms, a.code,
       a.error_kind, a.error_message, NULL AS error_permanent, o.output
FROM attempts AS a
    LEFT JOIN outputs AS o ON o.job = a.job AND o.seq = a.seq AND a.outcome <> 'reopened'
    LEFT JOIN pipelines AS p ON p.id = a.pipeline
    LEFT JOIN sources AS s ON s.id = a.source
    LEFT JOIN jobs AS j ON j.id = a.job
    LEFT JOIN watches AS w ON w.id = s.scope
WHERE a.job = ?1
ORDER BY a.id DESC
LIMIT ?2
