-- The wall clock was stepped by ?1 ms; before, it would show ?2 now. What waits for a while, or runs, is due as late as it
-- was, and counts from where it counted. A job that never ran and is not due yet waits for a date, which stays.
UPDATE jobs SET
    run_at = CASE WHEN executions = 0 AND run_at > ?2 THEN run_at ELSE run_at + ?1 END,
    first_started_at = first_started_at + ?1
WHERE state IN ('pending', 'retrying', 'running')
