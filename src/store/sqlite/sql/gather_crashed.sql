-- Leases whose deadline (CLOCK_BOOTTIME) is at most ?2: of boot ?1 where ?4, else of every other. What follows: given up after ?3 crashes while alone; superseded where a newer
-- version waits; due again otherwise. A file on its way (a disposition) is always brought to its end first.
INSERT INTO temp.crashed (id, pipeline, priority, next_state, successor, moving, suspect)
SELECT j.id, j.pipeline, j.priority,
       CASE WHEN d.job IS NOT NULL THEN 'pending'
            WHEN j.crashes >= 2 AND j.crashes_alone + 1 >= ?3 THEN 'failed'
            WHEN b.id IS NOT NULL THEN 'skipped'
            ELSE 'pending' END,
       b.id, d.job IS NOT NULL, j.crashes + 1 >= 2
FROM jobs AS j INDEXED BY jobs_leased
LEFT JOIN jobs AS b ON b.blocked_by = j.id
LEFT JOIN dispositions AS d ON d.job = j.id
WHERE j.state = 'running' AND j.boot IS NOT NULL AND (j.boot = ?1) = ?4 AND j.lease_deadline <= ?2
