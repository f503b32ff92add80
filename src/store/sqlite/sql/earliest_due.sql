-- When the waiting job that comes first in time is or was due, without a scan: one seek into `jobs_due` for each
-- pipeline and level that has waiting jobs by the counters, and one into `jobs_suspect` for each pipeline.
SELECT min(run_at) FROM (
    SELECT (SELECT j.run_at FROM jobs AS j INDEXED BY jobs_due
            WHERE j.pipeline = c.pipeline AND j.priority = c.priority
                AND j.state IN ('pending', 'retrying') AND j.blocked_by IS NULL AND j.held_by IS NULL AND j.crashes < 2
            ORDER BY j.run_at LIMIT 1) AS run_at
    FROM (SELECT DISTINCT pipeline, priority FROM counters WHERE state IN ('pending', 'retrying') AND n > 0) AS c
    UNION ALL
    SELECT (SELECT j.run_at FROM jobs AS j INDEXED BY jobs_suspect
            WHERE j.pipeline = c.pipeline
                AND j.state IN ('pending', 'retrying') AND j.blocked_by IS NULL AND j.held_by IS NULL AND j.crashes >= 2
            ORDER BY j.run_at LIMIT 1)
    FROM (SELECT DISTINCT pipeline FROM counters WHERE state IN ('pending', 'retrying') AND n > 0) AS c)
