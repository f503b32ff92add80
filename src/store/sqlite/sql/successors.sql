-- Newer versions that wait for the end of these.
WITH ending(job) AS (ROWS)
SELECT ending.job, b.id FROM ending CROSS JOIN jobs AS b ON b.blocked_by = ending.job
