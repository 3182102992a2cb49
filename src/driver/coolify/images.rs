//! Images brought to the server. Only a deployment pulls, so one application for each image is deployed once, with a bot
//! program that nobody knows and that therefore idles, and stopped again.

use super::Engine;
use super::budget::Priority;
use super::configuration::variable;
use super::description::Shown;
use super::starts::{Errand, Leave};
use super::status::Deed;
use meeboter_actors::ports::{DriverError, PullProgress, ResourceLimits};
use meeboter_bot::{ENV_SERVER, ENV_SLOT, ENV_TOKEN};
use serde_json::Value;
use sha2::{Digest, Sha256};
use slog::info;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use uuid::Uuid;

/// A token that is nobody's: the server refuses it, and the program idles until it is stopped.
const NO_TOKEN: &str = "parked";
/// How often it is said that a deployment is still under way.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the stop of a parked container may take.
const STOP_LIMIT: Duration = Duration::from_secs(120);

impl Engine {
    /// Makes an image present on the server.
    pub(super) async fn park(
        &self,
        image: &str,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<(), DriverError> {
        self.load(self.claim(Priority::Start)).await?;
        if self.is_in_use(image) {
            return Ok(());
        }
        let name = parked_name(image);
        let slot = Uuid::nil().to_string();
        let variables =
            [(ENV_SLOT, slot.as_str()), (ENV_SERVER, &self.settings.server_url), (ENV_TOKEN, NO_TOKEN)];
        let variables: Result<Vec<Value>, _> =
            variables.iter().map(|(name, value)| variable(name, value)).collect();
        let errand = Errand {
            name: &name,
            image,
            limits: ResourceLimits::default(),
            key: None,
            shown: Shown::Parked(image.to_owned()),
            variables: variables.map_err(|error| DriverError {
                message: error.to_string(),
                answered: true,
                retryable: false,
            })?,
        };
        let limit = self.pace().start_limit;
        let deployed = tokio::select! {
            deployed = timeout(limit, self.carry_out(&errand, Leave::Always)) => deployed.unwrap_or_else(|_| {
                let message = format!("Coolify did not deploy {name} within {} s", limit.as_secs());
                Err(DriverError { message, answered: true, retryable: true })
            })?,
            never = tell(progress) => match never {},
        };
        info!(self.log, "image is on Coolify's server"; "image" => image, "application" => &name);
        timeout(STOP_LIMIT, self.end(&deployed)).await.unwrap_or_else(|_| {
            let message = format!("Coolify did not stop {name} within {} s", STOP_LIMIT.as_secs());
            Err(DriverError { message, answered: true, retryable: true })
        })
    }

    /// Whether a bot of this installation runs on it at this moment: then it is there.
    fn is_in_use(&self, image: &str) -> bool {
        self.registry().all().any(|known| known.image == image && matches!(known.deed, Deed::Running(_)))
    }
}

/// Says that it gets on: Coolify does not tell how far a pull is, and ends deployments that hang by itself.
async fn tell(progress: &watch::Sender<PullProgress>) -> Infallible {
    let mut interval = interval(PROGRESS_INTERVAL);
    loop {
        interval.tick().await;
        progress.send_modify(|progress| progress.done += 1);
    }
}

/// `meeboter-prewarm-<last part of the image's name>-<digest of all of it>`.
fn parked_name(image: &str) -> String {
    let digest = Sha256::digest(image.as_bytes());
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let last = image.rsplit('/').next().unwrap_or(image);
    let plain = last.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "._-".contains(*letter));
    format!("meeboter-prewarm-{}-{short}", plain.take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_an_application_of_its_own() {
        let (old, new) = (parked_name("ghcr.io/m/zoom-bot:v1"), parked_name("ghcr.io/m/zoom-bot:v2"));
        assert!(old.starts_with("meeboter-prewarm-zoom-bot-"), "{old}");
        assert_ne!(old, new);
    }
}
