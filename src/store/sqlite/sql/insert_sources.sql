-- Rows: [id, scope, identity, own path, [dev, inode, size, mtime, ctime], digest, version].
INSERT INTO sources (id, scope, identity, path, dev, inode, size, mtime_ns, ctime_ns, digest, digest_version, version)
SELECT value ->> 0, value ->> 1, unhex(value ->> 2), unhex(value ->> 3),
       value ->> '$[4][0]', value ->> '$[4][1]', value ->> '$[4][2]', value ->> '$[4][3]', value ->> '$[4][4]',
       unhex(value ->> 5), CASE WHEN value ->> 5 IS NOT NULL THEN value ->> 6 END, value ->> 6
FROM json_each(?)
