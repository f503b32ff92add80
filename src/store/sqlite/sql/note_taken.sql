INSERT INTO taken (source, pipeline, version, job, started)
SELECT * FROM (ROWS) WHERE column1 IS NOT NULL
ON CONFLICT (source, pipeline) DO UPDATE SET
    version = excluded.version, job = excluded.job, started = max(started, excluded.started)
