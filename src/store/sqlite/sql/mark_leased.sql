-- Boot, deadline and twice the time, then the jobs.
UPDATE jobs SET
    state = 'running', boot = ?, lease_deadline = ?, fence = fence + 1, executions = executions + 1,
    started_at = ?, first_started_at = coalesce(first_started_at, ?)
WHERE id IN (ROWS) AND state IN ('pending', 'retrying')
