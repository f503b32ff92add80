-- A file with many names (hard links) is looked at under a few of them only. (`+`: or SQLite may make an index on the
-- spot, of the whole table.)
WITH asked(at, scope, dev, inode, size, mtime_ns) AS (ROWS)
SELECT asked.at, s.identity FROM asked
CROSS JOIN sources AS s ON s.id IN (SELECT f.id FROM sources AS f INDEXED BY sources_inode
                                    WHERE f.scope = asked.scope AND f.inode = asked.inode
                                        AND f.mtime_ns = asked.mtime_ns LIMIT 8)
WHERE asked.at IS NOT NULL
    AND +s.dev = asked.dev AND +s.size = asked.size
    AND (s.presence = 'present' OR (s.presence = 'vanished' AND s.digest_version = s.version))
