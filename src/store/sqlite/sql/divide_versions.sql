-- The same, where the file changed between the executions of two pipelines, and another one ended this version with
-- another content, or may have: what was worked on is the next version, unless the job is tried again. It looks like no
-- file, so that what is there is compared as soon as it is seen again, for each pipeline.
WITH worked_on(source, job, dev, inode, size, mtime_ns, ctime_ns, digest, over) AS (ROWS)
UPDATE sources SET
    dev = v.dev, inode = v.inode, size = v.size, mtime_ns = v.mtime_ns, ctime_ns = 0,
    version = sources.version + v.over,
    digest = iif(v.over, v.digest, NULL), digest_version = iif(v.over, sources.version + 1, NULL)
FROM worked_on AS v
CROSS JOIN jobs AS j ON j.id = v.job
WHERE sources.id = v.source AND sources.version = j.version AND sources.presence <> 'consumed'
    AND (sources.inode IS NOT v.inode OR sources.dev IS NOT v.dev OR sources.mtime_ns IS NOT v.mtime_ns
         OR (sources.digest_version = sources.version AND sources.digest IS NOT v.digest))
    AND EXISTS (
        SELECT 1 FROM taken AS t LEFT JOIN jobs AS o ON o.id = t.job
        WHERE t.source = v.source AND t.pipeline <> j.pipeline AND t.version = j.version
            AND (o.state IS NULL OR o.state NOT IN ('pending', 'running', 'retrying'))
            AND coalesce(o.digest, iif(sources.digest_version = sources.version, sources.digest, NULL)) IS NOT v.digest)
RETURNING id
