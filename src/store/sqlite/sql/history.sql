-- The history, newest first, walked by its key.
-- ?1: below this number, ?2: at most so many, ?3: from this number on, ?4: pipeline, ?5: watch, ?6: a part of the
-- error in lowercase, ?7: ended at or after, ?8: a JSON array of outcomes,
-- ?9: the run, ?10: the repository, as far as the job is there. NULL means any.
SELECT a.id, a.job, a.seq, p.name AS pipeline, s.scope, w.name AS watch, w.root,
       coalesce(j.identity, s.identity) AS identity, s.path AS source_path,
       a.outcome, a.spent, a.started_at, a.finished_at, a.duration_ms, a.code,
       a.error_kind, a.error_message, NULL AS error_permanent, NULL AS output
FROM attempts AS a
    LEFT JOIN pipelines AS p ON p.id = a.pipeline
    LEFT JOIN sources AS s ON s.id = a.source
    LEFT JOIN jobs AS j ON j.id = a.job
    LEFT JOIN watches AS w ON w.id = s.scope
WHERE a.id < ?1 AND a.id >= ?3
    AND (?4 IS NULL OR p.name = ?4)
    AND (?5 IS NULL OR w.name = ?5)
    AND (?6 IS NULL OR instr(lower(a.error_message), ?6) > 0)
    AND (?7 IS NULL OR a.finished_at >= ?7)
    AND (?8 IS NULL OR a.outcome IN (SELECT value FROM json_each(?8)))
    AND (?9 IS NULL OR j.run = ?9)
    AND (?10 IS NULL OR j.repo = ?10)
ORDER BY a.id DESC
LIMIT ?2
