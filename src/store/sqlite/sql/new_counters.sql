-- A counter comes into being at zero and is then changed, because its CHECK sees what an upsert would insert.
INSERT OR IGNORE INTO counters (pipeline, state, priority, n)
SELECT column1, column2, column3, 0 FROM (ROWS) WHERE column1 IS NOT NULL
