-- One row of history for each execution that ends, if its lease stands.
WITH ended(job, fence, outcome, spent, ended_at, duration_ms, code, error_kind, error_message) AS (ROWS)
INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at, finished_at,
                      duration_ms, code, error_kind, error_message)
SELECT j.id, j.executions, j.source, j.pipeline, j.priority, v.outcome, v.spent,
       j.run_at, j.started_at, v.ended_at, v.duration_ms, v.code, v.error_kind, v.error_message
FROM ended AS v
CROSS JOIN jobs AS j ON j.id = v.job AND j.fence = v.fence AND j.state = 'running'
