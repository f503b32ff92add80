-- The first source that completed a content stands for it.
WITH completed(pipeline, digest, source, job) AS (ROWS)
INSERT OR IGNORE INTO contents (pipeline, digest, source, job)
SELECT v.pipeline, v.digest, v.source, v.job FROM completed AS v WHERE v.pipeline IS NOT NULL
