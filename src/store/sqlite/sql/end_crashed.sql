-- Those that are over: superseded, or given up.
UPDATE jobs SET
    state = c.next_state, boot = NULL, lease_deadline = NULL,
    crashes_alone = crashes_alone + (crashes >= 2), crashes = crashes + 1,
    finished_at = ?1,
    reason = CASE WHEN c.next_state = 'skipped' THEN 'superseded' END,
    superseded_by = CASE WHEN c.next_state = 'skipped' THEN c.successor END,
    error_kind = CASE WHEN c.next_state = 'failed' THEN 'crash' ELSE error_kind END,
    error_message = CASE WHEN c.next_state = 'failed'
        THEN 'the daemon ended ' || ?2 || ' times while this job was the only one running' ELSE error_message END,
    error_permanent = CASE WHEN c.next_state = 'failed' THEN 1 ELSE error_permanent END
FROM temp.crashed AS c
WHERE c.next_state <> 'pending' AND jobs.id = c.id AND jobs.state = 'running'
