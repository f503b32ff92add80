WITH moved(pipeline, state, priority, delta) AS (ROWS)
UPDATE counters SET n = n + v.delta
FROM moved AS v
WHERE counters.pipeline = v.pipeline AND counters.state = v.state AND counters.priority = v.priority
