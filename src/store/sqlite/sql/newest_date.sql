-- The newest date that a row has, as far as the ends of the tables tell.
SELECT max(date) FROM (
    SELECT max(started_at, coalesce(stopped_at, started_at)) AS date FROM (SELECT * FROM boots ORDER BY id DESC LIMIT 2)
    UNION ALL SELECT finished_at FROM (SELECT finished_at FROM attempts ORDER BY id DESC LIMIT 1)
    UNION ALL SELECT created_at FROM (SELECT created_at FROM jobs ORDER BY id DESC LIMIT 1))
