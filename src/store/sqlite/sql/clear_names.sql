-- Names that are about to be given to others. No path holds a zero byte.
UPDATE sources SET identity = CAST(x'00' || id AS BLOB) WHERE id IN (ROWS)
