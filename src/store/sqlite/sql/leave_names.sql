-- What stays behind under a name that a file left: no file, no content, and the number above which the versions go on
-- of whatever appears there next.
WITH left_behind(at, id, version) AS (ROWS)
UPDATE sources SET
    presence = 'vanished', gone_at = v.at, version = v.version,
    dev = 0, inode = 0, size = 0, mtime_ns = 0, ctime_ns = 0, digest = NULL, digest_version = NULL
FROM left_behind AS v WHERE sources.id = v.id
