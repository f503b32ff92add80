-- Of these executions, those whose source is at a newer version by now.
WITH ending(job, source, pipeline) AS (ROWS)
SELECT ending.job, t.job, EXISTS (SELECT 1 FROM dispositions AS d WHERE d.job = ending.job)
FROM ending
CROSS JOIN taken AS t ON t.source = ending.source AND t.pipeline = ending.pipeline AND t.job <> ending.job
