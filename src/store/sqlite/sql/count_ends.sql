INSERT INTO rates (slot, pipeline, completed, failed, retried, busy_ms)
SELECT * FROM (ROWS) WHERE column1 IS NOT NULL
ON CONFLICT (slot, pipeline) DO UPDATE SET
    completed = completed + excluded.completed, failed = failed + excluded.failed,
    retried = retried + excluded.retried, busy_ms = busy_ms + excluded.busy_ms
