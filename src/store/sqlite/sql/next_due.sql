-- The earliest time after now at which a job of the pipeline becomes due: one probe for each level, and one for
-- the suspects.
SELECT min(run_at) FROM (
    SELECT * FROM (SELECT run_at FROM jobs WHERE pipeline = ?1 AND priority = 1 AND run_at > ?2
        AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT run_at FROM jobs WHERE pipeline = ?1 AND priority = 2 AND run_at > ?2
        AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT run_at FROM jobs WHERE pipeline = ?1 AND priority = 3 AND run_at > ?2
        AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT run_at FROM jobs WHERE pipeline = ?1 AND priority = 4 AND run_at > ?2
        AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes < 2 ORDER BY run_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT run_at FROM jobs WHERE pipeline = ?1 AND run_at > ?2
        AND state IN ('pending', 'retrying') AND blocked_by IS NULL AND crashes >= 2 ORDER BY run_at LIMIT 1)
)
