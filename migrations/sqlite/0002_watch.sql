-- Files that are renamed, and contents that were completed under another name.

-- A file under a new name is looked for among the known ones by its number on disk, with its modification time because
-- such numbers are used again: an inbox whose files are taken away soon knows many files with the same one.
CREATE INDEX sources_inode ON sources (scope, inode, mtime_ns);

-- The name of the source when the job ended, where the source has another one by now; NULL: the source's own.
ALTER TABLE jobs ADD COLUMN identity BLOB;
-- The name under which processors knew the file until then.
ALTER TABLE jobs ADD COLUMN moved_from BLOB;
-- The job with which the content was completed under another name; it may be pruned by now.
ALTER TABLE jobs ADD COLUMN duplicate_of INTEGER CHECK (duplicate_of IS NULL OR reason IS 'duplicate');

-- Contents that a pipeline completed, each with the source and the job that came first: kept where a watch of the
-- pipeline asks for it, for as long as the source is known.
CREATE TABLE contents (
    pipeline INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    source   INTEGER NOT NULL,
    job      INTEGER NOT NULL,
    PRIMARY KEY (pipeline, digest)
) WITHOUT ROWID;
CREATE INDEX contents_source ON contents (source);
