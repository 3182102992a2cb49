//! What an engine says by itself of this installation's containers.

use super::container::Recipe;
use super::engine::Engine;
use super::error::DockerError;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{StreamExt, pin_mut};
use meeboter_actors::ports::EngineEvent;
use tokio::sync::mpsc;

impl Engine {
    /// Tells of what happens, until the stream ends: what was missed then shows in a listing.
    pub(super) async fn watch(&self, events: &mpsc::Sender<EngineEvent>) -> Result<(), DockerError> {
        let mut filters = self.filters();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
        // Told again: the engine may have been away, and be another version now.
        self.forget_client();
        let client = self.client().await?;
        let told = client.events(Some(options));
        pin_mut!(told);
        loop {
            let next = tokio::select! {
                next = told.next() => next,
                // Nobody listens any more.
                () = events.closed() => return Ok(()),
            };
            let message = match next {
                None => return Ok(()),
                Some(message) => message.map_err(|error| self.error("tell its events", error))?,
            };
            if let Some(event) = meaning(&self.recipe, &message)
                && events.try_send(event).is_err()
            {
                return Ok(());
            }
        }
    }
}

/// What an event means to a slot. That a container ended is told, with the reason, to whoever waits for it.
fn meaning(recipe: &Recipe, message: &EventMessage) -> Option<EngineEvent> {
    let key = recipe.key(message.actor.as_ref()?.attributes.as_ref()?)?;
    match message.action.as_deref()? {
        "start" => Some(EngineEvent::Appeared(key)),
        "destroy" => Some(EngineEvent::Vanished(key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;
    use meeboter_actors::ids::{ContainerKey, Generation, SlotId};
    use uuid::Uuid;

    #[test]
    fn starts_and_removals_of_ones_own_are_told() {
        let installation = Uuid::from_u128(1);
        let (server_url, network) = (String::new(), None);
        let recipe = Recipe { installation, server_url, network, log_max_mib: 1 };
        let key = ContainerKey { slot: SlotId(Uuid::from_u128(2)), generation: Generation(3) };
        let told = |action: &str, installation: Uuid| {
            let labels = [
                ("meeboter.installation", installation.to_string()),
                ("meeboter.slot", key.slot.to_string()),
                ("meeboter.generation", "3".to_owned()),
                ("image", "i:1".to_owned()),
            ];
            let attributes = labels.map(|(name, value)| (name.to_owned(), value)).into();
            let actor = EventActor { id: None, attributes: Some(attributes) };
            let message = EventMessage {
                action: Some(action.to_owned()),
                actor: Some(actor),
                ..EventMessage::default()
            };
            meaning(&recipe, &message)
        };
        assert_eq!(told("start", installation), Some(EngineEvent::Appeared(key)));
        assert_eq!(told("destroy", installation), Some(EngineEvent::Vanished(key)));
        assert_eq!(told("die", installation), None);
        assert_eq!(told("destroy", Uuid::from_u128(9)), None);
    }
}
