-- Which job completed the content. What went wrong before is over.
WITH ended(job, original) AS (ROWS)
UPDATE jobs SET duplicate_of = v.original, error_kind = NULL, error_message = NULL, error_permanent = NULL
FROM ended AS v
WHERE jobs.id = v.job AND jobs.reason = 'duplicate'
