-- A deferral counts; any other end starts the deferrals anew. Any end that is no crash ends the row of crashes.
WITH ended(job, fence, state, run_at, finished_at, spent, deferred, reason, superseded_by, size, digest,
           clear_error, error_kind, error_message, error_permanent) AS (ROWS)
UPDATE jobs SET
    state = v.state,
    run_at = coalesce(v.run_at, jobs.run_at),
    finished_at = v.finished_at,
    attempt = attempt + v.spent,
    deferrals = CASE WHEN v.deferred THEN deferrals + 1 ELSE 0 END,
    crashes = 0, crashes_alone = 0, boot = NULL, lease_deadline = NULL,
    reason = v.reason, superseded_by = v.superseded_by,
    size = coalesce(v.size, jobs.size), digest = coalesce(v.digest, jobs.digest),
    error_kind = CASE WHEN v.clear_error THEN NULL ELSE coalesce(v.error_kind, jobs.error_kind) END,
    error_message = CASE WHEN v.clear_error THEN NULL ELSE coalesce(v.error_message, jobs.error_message) END,
    error_permanent = CASE WHEN v.clear_error THEN NULL ELSE coalesce(v.error_permanent, jobs.error_permanent) END
FROM ended AS v
WHERE jobs.id = v.job AND jobs.fence = v.fence AND jobs.state = 'running'
