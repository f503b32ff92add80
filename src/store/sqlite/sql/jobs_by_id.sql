-- Jobs by their numbers, newest first, with the names of what they refer to.
-- ?1: a JSON array of numbers, as long as the caller's page. The outer joins keep a job whose source or watch is
-- missing, so that it is reported and not left out. The original of a duplicate is named by its job, and once that is
-- pruned by what is known of the content.
SELECT j.id, p.name AS pipeline, s.scope, w.name AS watch, w.root,
       coalesce(j.identity, s.identity) AS identity, s.path AS source_path,
       j.op, j.version, j.priority, j.state, j.attempt, j.executions, j.crashes,
       j.run_at, j.created_at, j.started_at, j.finished_at, j.blocked_by, j.reason, j.superseded_by, j.duplicate_of,
       j.size, j.digest, j.metadata, j.error_kind, j.error_message, j.error_permanent, j.moved_from,
       j.run, j.line, j.repo, j.content, j.stage, j.external_id, j.result,
       os.scope AS original_scope, ow.name AS original_watch, ow.root AS original_root,
       coalesce(o.identity, os.identity) AS original_identity, os.path AS original_path
FROM json_each(?1) AS chosen
    CROSS JOIN jobs AS j ON j.id = chosen.value
    LEFT JOIN pipelines AS p ON p.id = j.pipeline
    LEFT JOIN sources AS s ON s.id = j.source
    LEFT JOIN watches AS w ON w.id = s.scope
    LEFT JOIN jobs AS o ON o.id = j.duplicate_of
    LEFT JOIN contents AS k ON k.pipeline = j.pipeline AND k.digest = j.digest AND j.duplicate_of IS NOT NULL
    LEFT JOIN sources AS os ON os.id = coalesce(o.source, k.source)
    LEFT JOIN watches AS ow ON ow.id = os.scope
ORDER BY j.id DESC
