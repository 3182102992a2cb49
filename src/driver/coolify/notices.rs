//! Descriptions for people, written when there is room for it: one that is overtaken is never sent, and none is in the way
//! of a start.

use super::Engine;
use super::api::Request;
use super::budget::Priority;
use super::description::{Shown, text};
use super::error::ApiError;
use serde_json::{Map, Value, json};
use slog::debug;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked whether there is something to write.
const INTERVAL: Duration = Duration::from_millis(500);

/// Writes what is to be written, as long as the driver is there.
pub(super) async fn write(engine: Weak<Engine>) {
    loop {
        sleep(INTERVAL).await;
        let Some(engine) = engine.upgrade() else { return };
        let due: Vec<String> = {
            let registry = engine.registry();
            registry.all().filter(|known| known.notice.is_some()).map(|known| known.uuid.clone()).collect()
        };
        for application in due {
            if let Err(ApiError::Unsent { .. }) = engine.write_notice(&application).await {
                break;
            }
        }
    }
}

impl Engine {
    /// Notes what people should read of an application; it takes the place of what was not written yet.
    pub(super) fn show(&self, application: &str, shown: Shown) {
        if let Some(known) = self.registry().get_mut(application) {
            known.notice = Some(shown);
        }
    }

    async fn write_notice(&self, application: &str) -> Result<(), ApiError> {
        let known = self.registry().get(application).map(|known| (known.key, known.name.clone()));
        let Some((key, name)) = known else { return Ok(()) };
        let gate = key.map(|key| self.gate(key.slot));
        // Whoever changes the application now writes a description himself.
        let _turn = match &gate {
            Some(gate) => match gate.turn.try_lock() {
                Ok(turn) => Some(turn),
                Err(_) => return Ok(()),
            },
            None => None,
        };
        let Ok(_application_turn) = self.application_turn(&name, Duration::ZERO).await else { return Ok(()) };
        let shown = match self.registry().get_mut(application) {
            // It became another slot's meanwhile.
            Some(known) if known.key != key => return Ok(()),
            Some(known) => known.notice.take(),
            None => None,
        };
        let Some(shown) = shown else { return Ok(()) };
        let body = Map::from_iter([("description".to_owned(), json!(text(&shown, key)))]);
        // At once or later: nobody waits behind a notice.
        let written = self
            .client
            .send::<Value>(Priority::Notice, Duration::ZERO, Request::change(application, body))
            .await;
        match written {
            Err(error @ ApiError::Unsent { .. }) => {
                if let Some(known) = self.registry().get_mut(application) {
                    known.notice.get_or_insert(shown);
                }
                Err(error)
            }
            Err(error) => {
                debug!(self.log, "a description was not written"; "application" => application, "error" => %error);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
