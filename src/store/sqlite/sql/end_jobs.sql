-- A deferral counts; any other end starts the deferrals anew. Any end that is no crash ends the row of crashes.
UPDATE jobs SET
    state = v.value ->> 'state',
    run_at = coalesce(v.value ->> 'run_at', run_at),
    finished_at = v.value ->> 'finished_at',
    attempt = attempt + (v.value ->> 'spent'),
    deferrals = CASE WHEN v.value ->> 'deferred' THEN deferrals + 1 ELSE 0 END,
    crashes = 0, crashes_alone = 0, boot = NULL, lease_deadline = NULL,
    reason = v.value ->> 'reason', superseded_by = v.value ->> 'superseded_by',
    size = coalesce(v.value ->> 'size', size), digest = coalesce(unhex(v.value ->> 'digest'), digest),
    error_kind = CASE WHEN v.value ->> 'clear_error' THEN NULL ELSE coalesce(v.value ->> 'error_kind', error_kind) END,
    error_message = CASE WHEN v.value ->> 'clear_error' THEN NULL
                         ELSE coalesce(v.value ->> 'error_message', error_message) END,
    error_permanent = CASE WHEN v.value ->> 'clear_error' THEN NULL
                           ELSE coalesce(v.value ->> 'error_permanent', error_permanent) END
FROM json_each(?) AS v
WHERE jobs.id = v.value ->> 'id' AND jobs.fence = v.value ->> 'fence' AND jobs.state = 'running'
