-- ?1: the pipelines' names; ?2: now.
-- The questions that one seek answers come first. Only where nothing but jobs in the future wait are those looked through,
-- for one that a deferral or a crash put there and not a person. Jobs of paused runs wait for a person, whether they were
-- set aside yet or not.
WITH asked AS (SELECT id FROM pipelines WHERE NOT paused AND name IN (SELECT value FROM json_each(?1))),
     halted AS (SELECT id FROM runs INDEXED BY runs_paused WHERE state = 'paused')
SELECT
    (SELECT coalesce(sum(n), 0) FROM counters WHERE state = 'running') AS running,
    CASE
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_retrying
                     WHERE pipeline IN (SELECT id FROM asked) AND state = 'retrying'
                       AND (run IS NULL OR run NOT IN (SELECT id FROM halted))) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due
                     WHERE pipeline IN (SELECT id FROM asked) AND priority IN (1, 2, 3, 4) AND run_at <= ?2
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2
                       AND (run IS NULL OR run NOT IN (SELECT id FROM halted))) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_blocked
                     WHERE blocked_by IS NOT NULL AND pipeline IN (SELECT id FROM asked)
                       AND (run IS NULL OR run NOT IN (SELECT id FROM halted))) THEN 1
        WHEN EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_suspect
                     WHERE pipeline IN (SELECT id FROM asked)
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2
                       AND (run IS NULL OR run NOT IN (SELECT id FROM halted))) THEN 1
        ELSE EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due
                     WHERE pipeline IN (SELECT id FROM asked) AND (deferrals > 0 OR crashes > 0)
                       AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2
                       AND (run IS NULL OR run NOT IN (SELECT id FROM halted)))
    END AS waiting,
    -- Said by one of the newest executions, whose job waits to be tried again.
    (SELECT j.error_message
     FROM (SELECT job, error_kind FROM attempts ORDER BY id DESC LIMIT 1000) AS newest
         CROSS JOIN jobs AS j ON j.id = newest.job
     WHERE newest.error_kind = 'spawn' AND j.state = 'pending' AND j.error_kind = 'spawn' AND j.run_at > ?2
       AND j.pipeline IN (SELECT id FROM asked)
     LIMIT 1) AS missing_program
