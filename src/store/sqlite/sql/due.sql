-- The head of one pipeline's level: the rows due, in order. The WHERE repeats the index's own, which is how
-- SQLite knows that the partial index serves.
SELECT id, run_at FROM jobs
WHERE pipeline = ?1 AND priority = ?2 AND run_at <= ?3
  AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2
ORDER BY run_at, id
LIMIT ?4
