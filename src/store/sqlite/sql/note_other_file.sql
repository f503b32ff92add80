-- The same for those that are another file by now, were touched, or have another content, with the same version all the
-- same.
WITH worked_on(source, job, dev, inode, size, mtime_ns, ctime_ns, digest) AS (ROWS)
UPDATE sources SET
    dev = v.dev, inode = v.inode, size = v.size, mtime_ns = v.mtime_ns, ctime_ns = v.ctime_ns,
    digest = v.digest, digest_version = sources.version
FROM worked_on AS v
CROSS JOIN jobs AS j ON j.id = v.job
WHERE sources.id = v.source AND sources.version = j.version
    AND (sources.inode IS NOT v.inode OR sources.dev IS NOT v.dev OR sources.mtime_ns IS NOT v.mtime_ns
         OR (sources.digest_version = sources.version AND sources.digest IS NOT v.digest))
