//! What a database that was restored from a backup needs before a server may use it. `docs/DEPLOYMENT.md` has it for
//! databases that went back in another way.

use super::database::{Database, DatabaseError};

/// Ids that no bot gets. The object store keeps what bots of after the backup recorded; with the same ids again, one
/// recording would overwrite another's, or hold pieces of it. More than a server gives away between two backups, and so
/// few that a client that counts in doubles (up to 2^53) bears nine billion restores.
const BOT_IDS_SKIPPED: i64 = 1_000_000;
/// Slots that no bot gets, for the generations that they have had since: an engine starts none again that it has stopped,
/// and a generation is one process's. The pool makes others, with ids that no engine has seen. A slot with a bot keeps it,
/// as its container may still run, and goes with it; what is left in another is a stray.
const SLOTS_GIVEN_UP: &str = "SET LOCAL meeboter.writer = 'journal'; \
    DELETE FROM bot_pool_slots WHERE assigned_bot_id IS NULL; \
    UPDATE bot_pool_slots SET draining = true, version = version + 1 WHERE NOT draining";

/// Why a database was not made fit for use.
#[derive(Debug, thiserror::Error)]
pub enum UnfitError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] DatabaseError),
    /// It could not be edited.
    #[error("the next bot's id and the slots could not be changed; is it a server's database?")]
    Edit(#[from] tokio_postgres::Error),
}

/// Leaves out what bots may have had which the backup does not know: their ids, and their slots' generations.
pub async fn make_fit(database: &Database) -> Result<(), UnfitError> {
    let mut connection = database.clone().primary().connect().await?;
    let transaction = connection.client.transaction().await?;
    let text = "UPDATE leadership SET next_bot_id = next_bot_id + $1 RETURNING next_bot_id";
    transaction.query_one(text, &[&BOT_IDS_SKIPPED]).await?;
    transaction.batch_execute(SLOTS_GIVEN_UP).await?;
    Ok(transaction.commit().await?)
}
