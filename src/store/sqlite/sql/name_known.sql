-- Sources that a run over a list names, and that needed no job: the list and the run, then the rows.
WITH shared(list, run) AS (SELECT ?, ?), v(source, pipeline) AS (ROWS)
UPDATE taken SET list = (SELECT list FROM shared), list_run = (SELECT run FROM shared)
FROM v
WHERE taken.source = v.source AND taken.pipeline = v.pipeline
