//! What a slot's shell has others do: images to pull, orders to the engine. Part of the shell: outcomes come back as
//! events, with the generation and operation that they belong to.

use super::actor::{Happened, SlotActor};
use super::event::SlotEvent;
use crate::ids::{BotId, ContainerId, Generation, Operation};
use crate::image_pull::actor::{EnsureImage, ForgetImage};
use crate::image_pull::machine::{PullFailure, Want};
use crate::ports::{DriverError, PrepareRequest, ResourceLimits, StartRequest, StopRequest};
use crate::supervision::tell;
use actix::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Time between two tries to watch a container where the engine could not.
const WATCH_RETRY: Duration = Duration::from_secs(1);

impl SlotActor {
    pub(super) fn pull_image(&mut self, image: String, operation: Operation, ctx: &mut Context<Self>) {
        let (reply, pulled) = oneshot::channel();
        tell(&self.links.pulls, EnsureImage { host: self.slot.host.clone(), image, want: Want::Bot, reply });
        let pull = self.effect(ctx, async move {
            match pulled.await {
                Ok(Ok(())) => SlotEvent::PullSucceeded { operation },
                Ok(Err(PullFailure::Failed { reason, .. })) => SlotEvent::PullFailed { operation, reason },
                Ok(Err(crowded)) => SlotEvent::PullDeclined { operation, reason: crowded.to_string() },
                Err(_) => SlotEvent::PullFailed { operation, reason: "the pull was given up".to_owned() },
            }
        });
        self.awaited = Some((operation, pull));
    }

    /// Makes the image present and then the container, which runs nothing.
    pub(super) fn prepare_container(
        &mut self,
        operation: Operation,
        limits: ResourceLimits,
        ctx: &mut Context<Self>,
    ) {
        let key = self.slot.container_key();
        let (host, image) = (self.slot.host.clone(), self.slot.image.clone());
        let (reply, pulled) = oneshot::channel();
        let forget = ForgetImage { host: host.clone(), image: image.clone() };
        let wanted = EnsureImage { host: host.clone(), image: image.clone(), want: Want::Ahead, reply };
        tell(&self.links.pulls, wanted);
        let slot_name = self.slot.name.clone();
        let request = PrepareRequest { host, key, slot_name, image, limits, operation };
        let (driver, pulls) = (Arc::clone(&self.links.driver), self.links.pulls.clone());
        let (log, patience) = (self.links.log.clone(), self.links.timing.pull);
        let prepared = async move {
            match tokio::time::timeout(patience, pulled).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(failure))) => return Err(failure.to_string()),
                Ok(Err(_)) | Err(_) => return Err("the pull was given up".to_owned()),
            }
            let prepared = driver.prepare(request).await;
            // The image may have been removed behind our back.
            prepared.inspect_err(|_| tell(&pulls, forget)).map_err(|error| error.to_string())
        };
        let (generation, name) = (key.generation, self.slot.name.clone());
        let preparation = self.effect(ctx, async move {
            match prepared.await {
                Ok(container) => SlotEvent::Prepared { generation, operation, container },
                Err(reason) => {
                    slog::warn!(log, "a container could not be prepared; it is tried again";
                        "slot" => %name, "reason" => reason);
                    SlotEvent::PrepareFailed { generation, operation }
                }
            }
        });
        self.awaited = Some((operation, preparation));
    }

    pub(super) fn start_container(&self, operation: Operation, bot_id: BotId, ctx: &mut Context<Self>) {
        let key = self.slot.container_key();
        let request = StartRequest {
            host: self.slot.host.clone(),
            key,
            slot_name: self.slot.name.clone(),
            image: self.slot.image.clone(),
            limits: self.links.limits.of(&self.slot.platform),
            operation,
            bot_id,
            platform: self.slot.platform.clone(),
            ephemeral: self.slot.ephemeral,
        };
        let driver = Arc::clone(&self.links.driver);
        let pulls = self.links.pulls.clone();
        let forget = ForgetImage { host: request.host.clone(), image: request.image.clone() };
        self.effect(ctx, async move {
            match driver.start(request).await {
                Ok(container) => SlotEvent::Started { generation: key.generation, operation, container },
                Err(DriverError { message, retryable, .. }) => {
                    // The image may have been removed behind our back.
                    tell(&pulls, forget);
                    SlotEvent::StartFailed {
                        generation: key.generation,
                        operation,
                        reason: message,
                        retryable,
                    }
                }
            }
        });
    }

    pub(super) fn stop_container(
        &self,
        operation: Operation,
        container: Option<ContainerId>,
        ctx: &mut Context<Self>,
    ) {
        let key = self.slot.container_key();
        let grace = self.links.timing.stop_grace;
        let driver = Arc::clone(&self.links.driver);
        let request = StopRequest { host: self.slot.host.clone(), key, container, operation, grace };
        self.effect(ctx, async move {
            match driver.stop(request).await {
                Ok(()) => SlotEvent::Stopped { generation: key.generation, operation },
                Err(DriverError { message, answered, .. }) => {
                    SlotEvent::StopFailed { generation: key.generation, operation, reason: message, answered }
                }
            }
        });
    }

    pub(super) fn watch(&mut self, generation: Generation, ctx: &mut Context<Self>) {
        let (host, key) = (self.slot.host.clone(), self.slot.container_key());
        let driver = Arc::clone(&self.links.driver);
        let watched = async move {
            loop {
                match driver.wait_exit(&host, key).await {
                    Ok(note) => return SlotEvent::Exited { generation, note },
                    Err(_) => tokio::time::sleep(WATCH_RETRY).await,
                }
            }
        };
        self.watch = Some((generation, self.effect(ctx, watched)));
    }

    fn effect(
        &self,
        ctx: &mut Context<Self>,
        outcome: impl Future<Output = SlotEvent> + 'static,
    ) -> SpawnHandle {
        ctx.spawn(
            outcome.into_actor(self).map(|event, act, ctx| act.take(Happened { event, reply: None }, ctx)),
        )
    }
}
