-- Runs over lists, after their counts moved. ?1: the runs, ?2: now. One whose input is read ends with its last open job,
-- paused or not: well if every line ended well. One that ended so goes on where a job was opened again.
UPDATE runs SET
    state = CASE WHEN jobs_open > 0 THEN 'running'
                 WHEN bad_lines + failed_lines + jobs_failed + jobs_cancelled = 0 THEN 'completed'
                 ELSE 'failed' END,
    finished_at = iif(jobs_open > 0, NULL, ?2), updated_at = ?2
WHERE id IN (SELECT value FROM json_each(?1)) AND list IS NOT NULL AND reading = 0
    AND ((jobs_open > 0 AND state IN ('completed', 'failed')) OR (jobs_open = 0 AND state IN ('running', 'paused')))
