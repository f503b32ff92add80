-- Nearly all of them: due again as they were. On its own, because SQLite keeps aside every column that an update takes
-- from another table.
UPDATE jobs SET
    state = 'pending', boot = NULL, lease_deadline = NULL,
    crashes_alone = crashes_alone + (crashes >= 2), crashes = crashes + 1
WHERE id IN (SELECT id FROM temp.crashed WHERE next_state = 'pending') AND state = 'running'
