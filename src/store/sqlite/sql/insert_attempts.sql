-- One row of history for each execution that ends. Guarded like the update that follows.
INSERT INTO attempts (job, seq, source, pipeline, priority, outcome, spent, due_at, started_at, finished_at,
                      duration_ms, code, error_kind, error_message)
SELECT j.id, j.executions, j.source, j.pipeline, j.priority, v.value ->> 'outcome', v.value ->> 'spent',
       j.run_at, j.started_at, v.value ->> 'ended_at', v.value ->> 'duration_ms', v.value ->> 'code',
       v.value ->> 'error_kind', v.value ->> 'error_message'
FROM json_each(?1) AS v
CROSS JOIN jobs AS j
    ON j.id = v.value ->> 'id' AND j.fence = v.value ->> 'fence' AND j.state = 'running'
