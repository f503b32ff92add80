-- Leases of boot ?1 whose deadline (CLOCK_BOOTTIME), as they were given, is at most ?2; renewals are kept in memory.
SELECT id, fence FROM jobs WHERE state = 'running' AND boot = ?1 AND lease_deadline <= ?2
