-- Each pipeline that was given either of the two sources knows that version of what stays behind.
WITH left_behind(id, of, version) AS (ROWS)
INSERT INTO taken (source, pipeline, version, job, started)
SELECT v.id, t.pipeline, v.version, 0, 0
FROM left_behind AS v CROSS JOIN taken AS t ON t.source IN (v.id, v.of)
WHERE true
ON CONFLICT (source, pipeline) DO UPDATE SET version = excluded.version, job = excluded.job, started = excluded.started
