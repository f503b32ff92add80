-- Jobs by their numbers, newest first, with the names of what they refer to.
-- ?1: a JSON array of numbers, as long as the caller's page. The outer joins keep a job whose source or watch is
-- missing, so that it is reported and not left out.
SELECT j.id, p.name AS pipeline, s.scope, w.name AS watch, w.root, s.identity, s.path AS source_path,
       j.op, j.version, j.priority, j.state, j.attempt, j.executions, j.crashes,
       j.run_at, j.created_at, j.started_at, j.finished_at, j.blocked_by, j.reason, j.superseded_by,
       j.size, j.digest, j.metadata, j.error_kind, j.error_message, j.error_permanent
FROM json_each(?1) AS chosen
    CROSS JOIN jobs AS j ON j.id = chosen.value
    LEFT JOIN pipelines AS p ON p.id = j.pipeline
    LEFT JOIN sources AS s ON s.id = j.source
    LEFT JOIN watches AS w ON w.id = s.scope
ORDER BY j.id DESC
