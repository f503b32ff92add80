-- The version that was taken has another number by now.
WITH lifted(source, before, version) AS (ROWS)
UPDATE taken SET version = v.version FROM lifted AS v WHERE taken.source = v.source AND taken.version = v.before
