-- Of these leases, those that still stand.
WITH asked(at, job, fence) AS (ROWS)
SELECT asked.at FROM asked
CROSS JOIN jobs AS j ON j.id = asked.job AND j.fence = asked.fence AND j.state = 'running'
