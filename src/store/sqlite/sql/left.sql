-- ?1: the pipelines' names; ?2: now.
-- The questions that the counters or one seek answer come first. Only where nothing but jobs in the future wait are those
-- looked through, for one that a deferral or a crash put there and not a person.
WITH asked AS (SELECT id FROM pipelines WHERE NOT paused AND name IN (SELECT value FROM json_each(?1)))
SELECT
    (SELECT coalesce(sum(n), 0) FROM counters WHERE state = 'running') AS running,
    CASE
        WHEN EXISTS (SELECT 1 FROM counters
                     WHERE pipeline IN (SELECT id FROM asked) AND state = 'retrying' AND n > 0) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due
                     WHERE pipeline IN (SELECT id FROM asked) AND priority IN (1, 2, 3, 4) AND run_at <= ?2
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_blocked
                     WHERE blocked_by IS NOT NULL AND pipeline IN (SELECT id FROM asked)) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_suspect
                     WHERE pipeline IN (SELECT id FROM asked)
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2) THEN 1
        ELSE EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due
                     WHERE pipeline IN (SELECT id FROM asked) AND (deferrals > 0 OR crashes > 0)
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2)
    END AS waiting,
    -- Said by one of the newest executions, whose job waits to be tried again.
    (SELECT j.error_message
     FROM (SELECT job, error_kind FROM attempts ORDER BY id DESC LIMIT 1000) AS newest
         CROSS JOIN jobs AS j ON j.id = newest.job
     WHERE newest.error_kind = 'spawn' AND j.state = 'pending' AND j.error_kind = 'spawn' AND j.run_at > ?2
       AND j.pipeline IN (SELECT id FROM asked)
     LIMIT 1) AS missing_program
