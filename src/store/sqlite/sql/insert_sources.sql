INSERT INTO sources (id, scope, identity, path, dev, inode, size, mtime_ns, ctime_ns, digest, digest_version, version)
SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10,
       CASE WHEN column10 IS NOT NULL THEN column11 END, column11
FROM (ROWS) WHERE column1 IS NOT NULL
