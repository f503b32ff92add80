-- What each of these jobs is about.
WITH asked(at, job) AS (ROWS)
SELECT asked.at, j.op FROM asked CROSS JOIN jobs AS j ON j.id = asked.job
