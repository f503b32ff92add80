-- Everything that a worker has to know about the chosen jobs, in the order in which they were chosen.
SELECT j.id, j.version, j.op, j.priority, j.state, j.attempt, j.deferrals, j.executions, j.crashes, j.fence,
       j.first_started_at, j.digest, j.baseline, j.metadata,
       j.pipeline AS pipeline_id, p.name AS pipeline,
       s.scope, s.identity, s.path AS source_path, w.name AS watch, w.root,
       s.dev, s.inode, s.size AS source_size, s.mtime_ns, s.ctime_ns,
       d.path AS d_path, d.private AS d_private, d.target AS d_target,
       d.error_kind AS d_error_kind, d.error_message AS d_error_message,
       d.dev AS d_dev, d.inode AS d_inode, d.size AS d_size, d.mtime_ns AS d_mtime_ns, d.ctime_ns AS d_ctime_ns
FROM json_each(?) AS chosen
CROSS JOIN jobs AS j ON j.id = chosen.value
JOIN pipelines AS p ON p.id = j.pipeline
JOIN sources AS s ON s.id = j.source
LEFT JOIN watches AS w ON w.id = s.scope
LEFT JOIN dispositions AS d ON d.job = j.id
ORDER BY chosen.key
