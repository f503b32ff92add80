-- Waiting jobs whose newer version arrived.
WITH shared(now) AS (SELECT ?), v(older, newer) AS (ROWS)
UPDATE jobs SET state = 'skipped', reason = 'superseded', superseded_by = v.newer, blocked_by = NULL, held_by = NULL,
                finished_at = (SELECT now FROM shared)
FROM v
WHERE jobs.id = v.older AND jobs.state IN ('pending', 'retrying')
