//! A database of the schema before the newest.

use std::path::Path;

/// What undoes the newest migration.
const BACK: &str = "
    DROP TABLE effects; DROP TABLE job_stages;
    DROP INDEX jobs_external; DROP INDEX jobs_key;
    ALTER TABLE dispositions DROP COLUMN effect;
    ALTER TABLE jobs DROP COLUMN stage; ALTER TABLE jobs DROP COLUMN external_id;
    ALTER TABLE jobs DROP COLUMN result; ALTER TABLE jobs DROP COLUMN key;
    DELETE FROM _sqlx_migrations WHERE version = 5;";

/// Takes a database that nobody uses back to it.
pub fn take_back(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.execute_batch(BACK).unwrap();
    connection.close().unwrap();
}
