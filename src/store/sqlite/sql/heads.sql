-- The heads of pipeline ?1 at the time ?2: of each level the first ?3 jobs that are due (kind 0), the first suspect that
-- is due (kind 1), and of each the time at which the next one becomes due (kind 2). Each line is one range of an index,
-- in its order; its WHERE repeats the index's own, which is how SQLite knows that a partial index serves.
-- (`?3 + 0`: where a LIMIT is a parameter alone, SQLite prepares the statement anew for each value that is bound.)
SELECT * FROM (SELECT 0 AS kind, id, 4 AS priority, run_at FROM jobs WHERE pipeline = ?1 AND priority = 4 AND run_at <= ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at, id LIMIT ?3 + 0)
UNION ALL
SELECT * FROM (SELECT 0, id, 3, run_at FROM jobs WHERE pipeline = ?1 AND priority = 3 AND run_at <= ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at, id LIMIT ?3 + 0)
UNION ALL
SELECT * FROM (SELECT 0, id, 2, run_at FROM jobs WHERE pipeline = ?1 AND priority = 2 AND run_at <= ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at, id LIMIT ?3 + 0)
UNION ALL
SELECT * FROM (SELECT 0, id, 1, run_at FROM jobs WHERE pipeline = ?1 AND priority = 1 AND run_at <= ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at, id LIMIT ?3 + 0)
UNION ALL
SELECT * FROM (SELECT 1, id, priority, run_at FROM jobs WHERE pipeline = ?1 AND run_at <= ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2 ORDER BY run_at, id LIMIT 1)
UNION ALL
SELECT * FROM (SELECT 2, id, 4, run_at FROM jobs WHERE pipeline = ?1 AND priority = 4 AND run_at > ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
UNION ALL
SELECT * FROM (SELECT 2, id, 3, run_at FROM jobs WHERE pipeline = ?1 AND priority = 3 AND run_at > ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
UNION ALL
SELECT * FROM (SELECT 2, id, 2, run_at FROM jobs WHERE pipeline = ?1 AND priority = 2 AND run_at > ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
UNION ALL
SELECT * FROM (SELECT 2, id, 1, run_at FROM jobs WHERE pipeline = ?1 AND priority = 1 AND run_at > ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
UNION ALL
SELECT * FROM (SELECT 2, id, priority, run_at FROM jobs WHERE pipeline = ?1 AND run_at > ?2
    AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND held_by IS NULL AND crashes >= 2 ORDER BY run_at LIMIT 1)
