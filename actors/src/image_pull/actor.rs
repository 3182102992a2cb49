//! Serialises pulls by host and image: one pulls, the others wait for its outcome; other keys go in parallel.

use crate::ids::HostName;
use crate::ports::{Driver, DriverError, PullProgress};
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// Makes an image present; answers when it is, or cannot be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EnsureImage {
    /// Where.
    pub host: HostName,
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
    waiting: BTreeMap<(HostName, String), Vec<PullReply>>,
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

    fn handle(&mut self, EnsureImage { host, image, reply }: EnsureImage, ctx: &mut Self::Context) {
        let waiting = self.waiting.entry((host.clone(), image.clone())).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let driver = Arc::clone(&self.driver);
        let pull = async move {
            let outcome = driver.pull(&host, &image, watch::Sender::new(PullProgress::default())).await;
            ((host, image), outcome)
        };
        ctx.spawn(pull.into_actor(self).map(|(key, outcome), act, _| {
            for reply in act.waiting.remove(&key).unwrap_or_default() {
                let _ = reply.send(outcome.clone());
            }
        }));
    }
}
