//! Brings the schema to this program's version. Runs on the connection that has just taken the lead, so that two
//! servers that start together do not migrate together.

use super::lead::{self, LeadError};
use slog::{Logger, info, warn};
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A migration that needs a table alone waits for whoever uses it, a backup for one, and everybody who comes after it waits
/// behind it: so it waits for less time than readers do (`pool.rs`), and ends at once when this process is gone.
const SESSION: &str = "SET lock_timeout = '2s'; SET client_connection_check_interval = '1s'";
/// A try's wait for a table, and the pause after it in which readers have their turn.
const TRY: Duration = Duration::from_millis(2_500);
const PAUSE: Duration = Duration::from_millis(500);

mod embedded {
    #![allow(missing_docs)]
    refinery::embed_migrations!("migrations");
}

/// Applies what is missing; a table that is in use is waited for until there is no time for another try. A schema of a
/// later version is left as it is (see `migrations/README.md`).
pub(super) async fn migrate(client: &mut Client, deadline: Instant, log: &Logger) -> Result<(), LeadError> {
    client.batch_execute(SESSION).await.map_err(LeadError::Lock)?;
    let mut said = String::new();
    loop {
        let Err(error) = try_to_migrate(client, log).await else { break };
        if !is_in_use(&error) {
            return Err(LeadError::Migrate(Box::new(error)));
        }
        let by = lead::users_of_tables(client).await.map_err(LeadError::Lock)?;
        if by != said {
            warn!(log, "a migration waits for a table that is in use"; "by" => &by);
            said.clone_from(&by);
        }
        if Instant::now() + TRY > deadline {
            return Err(LeadError::InUse(by));
        }
        sleep(PAUSE).await;
    }
    client.batch_execute("RESET lock_timeout").await.map_err(LeadError::Lock)
}

async fn try_to_migrate(client: &mut Client, log: &Logger) -> Result<(), refinery::Error> {
    let report = embedded::migrations::runner()
        .set_abort_missing(false)
        .set_abort_divergent(true)
        .run_async(client)
        .await?;
    for migration in report.applied_migrations() {
        info!(log, "schema migrated"; "migration" => migration.to_string());
    }
    Ok(())
}

fn is_in_use(error: &refinery::Error) -> bool {
    let postgres = error.source().and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    postgres.and_then(tokio_postgres::Error::code) == Some(&SqlState::LOCK_NOT_AVAILABLE)
}
