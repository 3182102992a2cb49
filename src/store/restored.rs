//! What a database that was restored from a backup needs before a server may use it.

use super::database::{Database, DatabaseError};

/// Ids that no bot gets. The object store keeps what bots of after the backup recorded; with the same ids again, one
/// recording would overwrite another's, or hold pieces of it. More than a server gives away between two backups, and so
/// few that a client that counts in doubles (up to 2^53) bears nine billion restores.
const BOT_IDS_SKIPPED: i64 = 1_000_000;

/// Why ids could not be left out.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] DatabaseError),
    /// The next id could not be raised.
    #[error("the next bot's id could not be raised; is it a server's database?")]
    Raise(#[from] tokio_postgres::Error),
}

/// Leaves out the ids that bots may have had which the backup does not know.
pub async fn skip_bot_ids(database: &Database) -> Result<(), SkipError> {
    let connection = database.connect().await?;
    let text = "UPDATE leadership SET next_bot_id = next_bot_id + $1 RETURNING next_bot_id";
    connection.client.query_one(text, &[&BOT_IDS_SKIPPED]).await?;
    Ok(())
}
