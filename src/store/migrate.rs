//! Brings the schema to this program's version. Runs on the connection that has just taken the lead, so that two
//! servers that start together do not migrate together.

use slog::{Logger, info};
use tokio_postgres::Client;

mod embedded {
    #![allow(missing_docs)]
    refinery::embed_migrations!("migrations");
}

/// Applies what is missing. A schema of a later version is left as it is (see `migrations/README.md`).
pub(super) async fn migrate(client: &mut Client, log: &Logger) -> Result<(), refinery::Error> {
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
