-- Leases to take back: where ?2 is a list of (job, fence), those of them that boot ?1 still holds; else every other
-- boot's. What follows: given up after ?3 crashes while alone; superseded where a newer version came; due again
-- otherwise. A file on its way (a disposition) is always brought to its end first.
INSERT INTO temp.crashed (id, pipeline, priority, next_state, successor, moving, suspect, run)
SELECT j.id, j.pipeline, j.priority,
       CASE WHEN d.job IS NOT NULL THEN 'pending'
            WHEN j.crashes >= 2 AND j.crashes_alone + 1 >= ?3 THEN 'failed'
            WHEN t.job IS NOT NULL THEN 'skipped'
            ELSE 'pending' END,
       t.job, d.job IS NOT NULL, j.crashes + 1 >= 2, j.run
FROM jobs AS j INDEXED BY jobs_leased
LEFT JOIN taken AS t ON t.source = j.source AND t.pipeline = j.pipeline AND t.job <> j.id
LEFT JOIN dispositions AS d ON d.job = j.id
WHERE j.state = 'running' AND j.boot IS NOT NULL AND (j.boot = ?1) = (?2 IS NOT NULL)
  AND (?2 IS NULL OR (j.id, j.fence) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2)))
