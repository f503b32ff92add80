-- What an execution worked on is what its version is, unless a newer version came meanwhile. Nearly always it is the
-- file that was known, and whatever is indexed of it stays as it is.
WITH worked_on(source, job, dev, inode, size, mtime_ns, ctime_ns, digest) AS (ROWS)
UPDATE sources SET
    size = v.size, ctime_ns = v.ctime_ns,
    digest = v.digest, digest_version = sources.version
FROM worked_on AS v
CROSS JOIN jobs AS j ON j.id = v.job
WHERE sources.id = v.source AND sources.version = j.version
    AND sources.inode = v.inode AND sources.dev = v.dev AND sources.mtime_ns = v.mtime_ns
    AND (sources.digest_version IS NOT sources.version OR sources.digest IS v.digest)
