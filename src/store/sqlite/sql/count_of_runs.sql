WITH moved(run, open, completed, failed, skipped, cancelled) AS (ROWS)
UPDATE runs SET
    jobs_open = jobs_open + v.open, jobs_completed = jobs_completed + v.completed, jobs_failed = jobs_failed + v.failed,
    jobs_skipped = jobs_skipped + v.skipped, jobs_cancelled = jobs_cancelled + v.cancelled
FROM moved AS v
WHERE runs.id = v.run
