//! An application's environment, as it is to be for its next deployment.

use super::Engine;
use super::api::{Request, Rows, VariableRow};
use super::budget::Priority;
use super::error::ApiError;
use super::starts::Errand;
use serde_json::Value;

/// The storage keys that bots of the older design expect; no other bot has them.
pub const STORAGE_VARIABLES: [&str; 5] =
    ["S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME", "S3_REGION"];

impl Engine {
    pub(super) async fn set_environment(
        &self,
        application: &str,
        errand: &Errand<'_>,
    ) -> Result<(), ApiError> {
        let is_tidied = self.registry().get(application).is_some_and(|known| known.is_tidied);
        if !is_tidied {
            self.take_storage_keys_back(application, errand).await?;
        }
        let request = Request::set_environment(application, errand.variables.clone());
        self.client.ask::<Value>(Priority::Start, self.pace().start_limit, request).await.map(drop)
    }

    /// Variables that are not set any more stay in an application. Which of them it has is asked for once: they change with
    /// this server's settings, and those with its start.
    async fn take_storage_keys_back(&self, application: &str, errand: &Errand<'_>) -> Result<(), ApiError> {
        let limit = self.pace().start_limit;
        let request = Request::environment_of(application);
        let rows: Rows<VariableRow> = self.client.ask(Priority::Start, limit, request).await?;
        let is_over = |row: &&VariableRow| {
            STORAGE_VARIABLES.contains(&row.key.as_str())
                && !errand.variables.iter().any(|variable| variable["key"] == row.key)
        };
        for row in rows.0.iter().filter(is_over) {
            let request = Request::forget_variable(application, &row.uuid);
            match self.client.ask::<Value>(Priority::Start, limit, request).await {
                Ok(_) => {}
                // A twin of one that was deleted, or deleted by the try whose answer got lost.
                Err(error) if error.status() == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(known) = self.registry().get_mut(application) {
            known.is_tidied = true;
        }
        Ok(())
    }
}
