-- Rows: [source, job, [dev, inode, size, mtime, ctime], digest]. What an execution worked on is what its version
-- is, unless a newer version came meanwhile.
UPDATE sources SET
    dev = v.value ->> '$[2][0]', inode = v.value ->> '$[2][1]', size = v.value ->> '$[2][2]',
    mtime_ns = v.value ->> '$[2][3]', ctime_ns = v.value ->> '$[2][4]',
    digest = unhex(v.value ->> 3), digest_version = sources.version
FROM json_each(?) AS v
CROSS JOIN jobs AS j ON j.id = v.value ->> 1
WHERE sources.id = v.value ->> 0 AND sources.version = j.version
