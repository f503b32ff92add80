-- The steps that files on their way were are done, at the time beside them.
WITH arrived(effect, at) AS (ROWS)
UPDATE effects SET state = 'done', ended_at = arrived.at
FROM arrived
WHERE effects.id = arrived.effect AND effects.state <> 'done'
