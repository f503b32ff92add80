-- ?1: the pipelines' names; ?2: now.
WITH asked AS (SELECT id FROM pipelines WHERE NOT paused AND name IN (SELECT value FROM json_each(?1)))
SELECT
    (SELECT coalesce(sum(n), 0) FROM counters WHERE state = 'running') AS running,
    EXISTS (SELECT 1 FROM jobs
            WHERE pipeline IN (SELECT id FROM asked) AND state IN ('pending', 'retrying')
              AND (state = 'retrying' OR deferrals > 0 OR crashes > 0 OR run_at <= ?2 OR blocked_by IS NOT NULL)
    ) AS waiting,
    (SELECT error_message FROM jobs
     WHERE pipeline IN (SELECT id FROM asked) AND state = 'pending' AND error_kind = 'spawn' AND finished_at IS NULL
     LIMIT 1) AS missing_program
