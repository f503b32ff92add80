-- As note_taken, for what a run over a list names: the list and the run, then the rows.
INSERT INTO taken (list, list_run, source, pipeline, version, job, started)
SELECT shared.list, shared.run, v.* FROM (SELECT ? AS list, ? AS run) AS shared CROSS JOIN (ROWS) AS v
WHERE v.column1 IS NOT NULL
ON CONFLICT (source, pipeline) DO UPDATE SET
    version = excluded.version, job = excluded.job, started = max(started, excluded.started),
    list = excluded.list, list_run = excluded.list_run
