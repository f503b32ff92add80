-- By job that would be tried again, the newest version's job, where that is another. Not where the job's file is on its
-- way, which is brought to its end first.
WITH asked(id, source, pipeline) AS (ROWS)
SELECT asked.id, t.job
FROM asked
CROSS JOIN taken AS t ON t.source = asked.source AND t.pipeline = asked.pipeline AND t.job <> asked.id
WHERE NOT EXISTS (SELECT 1 FROM dispositions AS d WHERE d.job = asked.id)
