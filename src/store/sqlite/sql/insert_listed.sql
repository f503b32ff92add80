-- As insert_jobs, for jobs that lines of a list ask for.
INSERT INTO jobs (created_at, state, id, source, pipeline, version, op, priority, run_at, blocked_by, size, digest, metadata,
                  run, line, repo, content)
SELECT shared.now, 'pending', v.* FROM (SELECT ? AS now) AS shared CROSS JOIN (ROWS) AS v WHERE v.column1 IS NOT NULL
