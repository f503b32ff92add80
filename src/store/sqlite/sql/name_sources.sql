WITH named(id, name) AS (ROWS)
UPDATE sources SET identity = v.name FROM named AS v WHERE sources.id = v.id
