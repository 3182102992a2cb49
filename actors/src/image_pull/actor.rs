//! Serialises pulls by image: one pulls, the others wait for its outcome; other images go in parallel.

use crate::ports::{Driver, DriverError};
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Makes an image present; answers when it is, or cannot be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EnsureImage {
    /// The image's reference.
    pub image: String,
    /// Where the outcome goes.
    pub reply: PullReply,
}

/// Where the outcome of a pull goes.
pub type PullReply = oneshot::Sender<Result<(), DriverError>>;

/// See the module.
pub struct ImagePullActor {
    driver: Arc<dyn Driver>,
    waiting: BTreeMap<String, Vec<PullReply>>,
    _guard: DeathGuard,
}

impl ImagePullActor {
    /// Pulls through `driver`.
    pub fn new(driver: Arc<dyn Driver>, guard: DeathGuard) -> Self {
        Self { driver, waiting: BTreeMap::new(), _guard: guard }
    }
}

impl Actor for ImagePullActor {
    type Context = Context<Self>;
}

impl Handler<EnsureImage> for ImagePullActor {
    type Result = ();

    fn handle(&mut self, EnsureImage { image, reply }: EnsureImage, ctx: &mut Self::Context) {
        let waiting = self.waiting.entry(image.clone()).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let driver = Arc::clone(&self.driver);
        let pull = async move {
            let outcome = driver.pull(&image).await;
            (image, outcome)
        };
        ctx.spawn(pull.into_actor(self).map(|(image, outcome), act, _| {
            for reply in act.waiting.remove(&image).unwrap_or_default() {
                let _ = reply.send(outcome.clone());
            }
        }));
    }
}
