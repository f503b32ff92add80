WITH printed(job, output) AS (ROWS)
INSERT OR IGNORE INTO outputs (job, seq, output)
SELECT v.job, j.executions, v.output FROM printed AS v CROSS JOIN jobs AS j ON j.id = v.job
