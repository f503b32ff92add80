-- The version that waited goes on, and knows the digest with which the one before it completed.
WITH ended(job, digest) AS (ROWS)
UPDATE jobs SET blocked_by = NULL, baseline = coalesce(v.digest, baseline)
FROM ended AS v
WHERE jobs.blocked_by = v.job
