-- What ran is no longer leased. A newer version waits only for an older one whose file is on its way.
UPDATE jobs SET state = 'pending', boot = NULL, lease_deadline = NULL WHERE state = 'running';
UPDATE jobs SET blocked_by = NULL WHERE blocked_by IS NOT NULL AND blocked_by NOT IN (SELECT job FROM dispositions);
-- Above every fence that was ever handed out: by more than one job could be leased, and never twice by the same.
UPDATE jobs SET fence = fence + (1 << 32) + (random() & 0xffffffff);
-- What a check found was found in another file.
DELETE FROM kv WHERE key = 'ingestd.maintenance.check';
