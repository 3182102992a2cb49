//! An image made present anew: pulled though it is there, since its tag may have moved, while bots start from what is
//! there; then every free slot that relies on it is told, whose next container may have been made from what the tag meant
//! before.

use super::PullKey;
use super::actor::{EnsureImage, ImagePullActor};
use super::machine::{PullFailure, Want};
use crate::slot::SlotStatus;
use crate::slot::command::SlotCommand;
use crate::slot::event::SlotEvent;
use crate::slot::handle::Directory;
use crate::supervision::tell;
use actix::prelude::*;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a slot may take to note that.
const SLOT_DEADLINE: Duration = Duration::from_secs(60);

/// Begins the pull; where it was under way already the outcome is that one's.
pub fn pull_anew(pulls: &Addr<ImagePullActor>, key: &PullKey) -> oneshot::Receiver<Result<(), PullFailure>> {
    let PullKey { host, image } = key.clone();
    let (reply, pulled) = oneshot::channel();
    tell(pulls, EnsureImage { host, image, want: Want::Renewal, reply });
    pulled
}

/// Tells those that are free now, after the pull: also who was busy before it may have a container of the old image by
/// now. Answers with how many took it in.
pub async fn refresh_slots(directory: &Directory, key: &PullKey) -> u64 {
    let mut told = 0;
    for handle in directory.all() {
        let slot = handle.snapshot();
        let relies = slot.host == key.host && slot.image == key.image;
        if !relies || slot.status() != Some(SlotStatus::Idle) {
            continue;
        }
        let answer = handle.send(SlotEvent::Commanded(SlotCommand::Refresh));
        // One that has a bot by now refuses: it is no longer idle.
        if let Ok(Ok(Ok(_))) = timeout(SLOT_DEADLINE, answer).await {
            told += 1;
        }
    }
    told
}
