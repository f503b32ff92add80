-- The history of the executions that nobody lived to end. (CROSS keeps the order of the loops: SQLite can't know that the
-- list is short.)
INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at, finished_at,
                      duration_ms, error_kind, error_message)
SELECT j.id, j.executions, j.source, j.pipeline, j.priority, 'crashed', 0, j.run_at, j.started_at, ?1,
       max(0, ?1 - j.started_at), 'crash', 'the daemon ended, or lost the lease, while this ran'
FROM temp.crashed AS c CROSS JOIN jobs AS j ON j.id = c.id
