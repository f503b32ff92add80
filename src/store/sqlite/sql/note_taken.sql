INSERT INTO taken (source, pipeline, version, job, started)
SELECT value ->> 'source', value ->> 'pipeline', value ->> 'version', value ->> 'id', value ->> 'started'
FROM json_each(?) WHERE true
ON CONFLICT (source, pipeline) DO UPDATE SET
    version = excluded.version, job = excluded.job, started = max(started, excluded.started)
