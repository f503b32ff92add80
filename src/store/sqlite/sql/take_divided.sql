-- Who completed what is the next version now has taken that.
WITH completed(source, pipeline) AS (ROWS)
UPDATE taken SET version = s.version
FROM completed AS v
CROSS JOIN sources AS s ON s.id = v.source
WHERE taken.source = v.source AND taken.pipeline = v.pipeline
