UPDATE jobs SET
    state = 'running', boot = ?2, lease_deadline = ?3, fence = fence + 1, executions = executions + 1,
    started_at = ?4, first_started_at = coalesce(first_started_at, ?4)
WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('pending', 'retrying')
