-- The file is there, as it is now.
WITH seen(id, path, dev, inode, size, mtime_ns, ctime_ns, digest, version) AS (ROWS)
UPDATE sources SET
    dev = v.dev, inode = v.inode, size = v.size, mtime_ns = v.mtime_ns, ctime_ns = v.ctime_ns,
    version = v.version,
    digest = v.digest,
    digest_version = CASE WHEN v.digest IS NOT NULL THEN v.version END,
    path = coalesce(v.path, sources.path),
    presence = 'present', gone_at = NULL
FROM seen AS v
WHERE sources.id = v.id
