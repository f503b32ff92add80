-- Everything that a worker has to know about the chosen jobs, with their places in the choice.
WITH chosen(at, job) AS (ROWS)
SELECT chosen.at AS at, j.id, j.source AS source_id, j.version, j.op, j.priority, j.state, j.attempt, j.deferrals, j.executions,
       j.crashes, j.fence, j.first_started_at, j.digest, j.baseline, j.metadata,
       j.pipeline AS pipeline_id, p.name AS pipeline,
       s.scope, s.identity, s.path AS source_path, w.name AS watch, w.root,
       s.dev, s.inode, s.size AS source_size, s.mtime_ns, s.ctime_ns,
       EXISTS (SELECT 1 FROM dispositions AS d WHERE d.job = j.id) AS moving
FROM chosen
CROSS JOIN jobs AS j ON j.id = chosen.job
JOIN pipelines AS p ON p.id = j.pipeline
JOIN sources AS s ON s.id = j.source
LEFT JOIN watches AS w ON w.id = s.scope
