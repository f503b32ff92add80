WITH moved(job, name) AS (ROWS)
UPDATE jobs SET moved_from = v.name FROM moved AS v WHERE jobs.id = v.job
