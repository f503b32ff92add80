-- The jobs of sources that get another name, as they were named until now. One that was never started goes along with
-- its source, and not one whose file is still on its way; of a source that gives its name away none does.
WITH moved(source, name, along, all_of_them) AS (ROWS)
UPDATE jobs SET identity = v.name
FROM moved AS v
WHERE jobs.source = v.source AND jobs.identity IS NULL AND jobs.id IS NOT v.along
    AND (v.all_of_them OR jobs.state NOT IN ('pending', 'retrying') OR jobs.executions > 0)
