-- Everything that a worker has to know about the chosen jobs, with their places in the choice. Read in this order.
-- The source's identity is of the job's digest where that is the source's own: another pipeline may have seen the file
-- since, with other content.
WITH chosen(at, job) AS (ROWS)
SELECT chosen.at, j.id, j.source, j.pipeline, j.priority, j.run, j.state, j.fence,
       j.version, j.op, j.attempt, j.deferrals, j.executions, j.crashes, j.first_started_at,
       j.digest, j.baseline, j.metadata, j.moved_from, j.content, j.stage, p.name,
       s.scope, coalesce(j.identity, s.identity), s.path, w.name, w.root,
       s.dev, s.inode, s.size, s.mtime_ns, s.ctime_ns,
       s.version = j.version AND s.digest_version IS s.version AND s.digest IS j.digest,
       EXISTS (SELECT 1 FROM dispositions AS d WHERE d.job = j.id) AS moving
FROM chosen
CROSS JOIN jobs AS j ON j.id = chosen.job
JOIN pipelines AS p ON p.id = j.pipeline
JOIN sources AS s ON s.id = j.source
LEFT JOIN watches AS w ON w.id = s.scope
