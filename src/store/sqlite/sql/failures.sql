-- Failed and retrying jobs by their error, most frequent first.
-- ?1: how many of each state are looked at, the newest; ?2: how many groups.
WITH failing AS (
    SELECT * FROM (
        SELECT id, pipeline, error_kind, error_message, error_permanent,
               coalesce(started_at, created_at) AS at, 1 AS failed
        FROM jobs INDEXED BY jobs_final
        WHERE state = 'failed' AND state IN ('completed', 'failed', 'cancelled', 'skipped')
        ORDER BY finished_at DESC LIMIT ?1)
    UNION ALL
    SELECT * FROM (
        SELECT id, pipeline, error_kind, error_message, error_permanent,
               coalesce(started_at, created_at) AS at, 0 AS failed
        FROM jobs INDEXED BY jobs_retrying
        WHERE state = 'retrying'
        ORDER BY id DESC LIMIT ?1)
), grouped AS (
    SELECT pipeline, error_kind, error_message, min(coalesce(error_permanent, 0)) AS error_permanent,
           sum(failed) AS failed, sum(1 - failed) AS retrying,
           min(at) AS first_at, max(at) AS last_at, max(id) AS example
    FROM failing
    GROUP BY pipeline, error_kind, error_message
    ORDER BY count(*) DESC, example DESC
    LIMIT ?2
)
SELECT p.name AS pipeline, g.error_kind, g.error_message, g.error_permanent, g.failed, g.retrying, g.first_at,
       g.last_at, g.example, s.scope, w.name AS watch, w.root,
       coalesce(j.identity, s.identity) AS identity, s.path AS source_path
FROM grouped AS g
    LEFT JOIN jobs AS j ON j.id = g.example
    LEFT JOIN pipelines AS p ON p.id = g.pipeline
    LEFT JOIN sources AS s ON s.id = j.source
    LEFT JOIN watches AS w ON w.id = s.scope
ORDER BY g.failed + g.retrying DESC, g.example DESC
