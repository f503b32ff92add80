-- Rows: [id, [dev, inode, size, mtime, ctime], version, digest, own path]. The file is there, as it is now.
UPDATE sources SET
    dev = v.value ->> '$[1][0]', inode = v.value ->> '$[1][1]', size = v.value ->> '$[1][2]',
    mtime_ns = v.value ->> '$[1][3]', ctime_ns = v.value ->> '$[1][4]',
    version = v.value ->> 2,
    digest = unhex(v.value ->> 3),
    digest_version = CASE WHEN v.value ->> 3 IS NOT NULL THEN v.value ->> 2 END,
    path = coalesce(unhex(v.value ->> 4), sources.path),
    presence = 'present', gone_at = NULL
FROM json_each(?) AS v
WHERE sources.id = v.value ->> 0
