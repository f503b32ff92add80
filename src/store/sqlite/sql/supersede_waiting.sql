-- Of versions of one source that wait side by side the newest goes on, as it would if the older one were waiting when it
-- came; but a file on its way is brought to its end first. ?1: now.
UPDATE jobs SET state = 'skipped', reason = 'superseded', superseded_by = newest.id, blocked_by = NULL, finished_at = ?1
FROM (SELECT source, pipeline, id, max(version) AS version FROM jobs
      WHERE state IN ('pending', 'retrying') GROUP BY source, pipeline HAVING count(*) > 1) AS newest
WHERE jobs.source = newest.source AND jobs.pipeline = newest.pipeline AND jobs.version < newest.version
    AND jobs.state IN ('pending', 'retrying') AND jobs.id NOT IN (SELECT job FROM dispositions)
