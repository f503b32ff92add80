-- Executions that found no file. Whatever is seen there next counts as changed: it may come back just as it was.
WITH missed(source, job) AS (ROWS)
UPDATE sources SET ctime_ns = 0
FROM missed AS v
CROSS JOIN jobs AS j ON j.id = v.job
WHERE sources.id = v.source AND sources.version = j.version AND sources.presence = 'present'
