INSERT INTO jobs (id, source, pipeline, version, op, priority, state, run_at, created_at, blocked_by, size, digest, metadata)
SELECT value ->> 'id', value ->> 'source', value ->> 'pipeline', value ->> 'version', value ->> 'op',
       value ->> 'priority', 'pending', value ->> 'run_at', ?2, value ->> 'blocked_by', value ->> 'size',
       unhex(value ->> 'digest'), value ->> 'metadata'
FROM json_each(?1)
