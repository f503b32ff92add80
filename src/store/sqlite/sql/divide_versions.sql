-- The same, where the file changed between the executions of two pipelines, and another one ended this version with
-- another content, or may have: the version is neither's. The next one is begun unless the job is tried again, and is
-- known by no content and no look, so that each pipeline is given what is there as soon as that is seen again.
WITH worked_on(source, job, dev, inode, size, mtime_ns, ctime_ns, digest, over) AS (ROWS)
UPDATE sources SET version = sources.version + v.over, ctime_ns = 0, digest = NULL, digest_version = NULL
FROM worked_on AS v
CROSS JOIN jobs AS j ON j.id = v.job
WHERE sources.id = v.source AND sources.version = j.version AND sources.presence <> 'consumed'
    AND (sources.inode IS NOT v.inode OR sources.dev IS NOT v.dev OR sources.mtime_ns IS NOT v.mtime_ns)
    AND EXISTS (
        SELECT 1 FROM taken AS t LEFT JOIN jobs AS o ON o.id = t.job
        WHERE t.source = v.source AND t.pipeline <> j.pipeline AND t.version = j.version
            AND (o.state IS NULL OR o.state NOT IN ('pending', 'running', 'retrying'))
            AND coalesce(o.digest, iif(sources.digest_version = sources.version, sources.digest, NULL)) IS NOT v.digest)
RETURNING id
