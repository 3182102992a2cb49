//! The emulator's own switches, below `/emulator/`: `POST faults`, `DELETE faults`, `POST restart`, and
//! `POST statuses/frozen` or `statuses/thawed`.

use super::super::answer::Answer;
use super::super::faults::Fault;
use super::super::{Shared, lock, work};
use actix_web::http::Method;
use std::sync::Arc;

pub(super) fn handle(shared: &Arc<Shared>, method: &Method, switch: &str, body: &[u8]) -> Answer {
    match (method.as_str(), switch) {
        ("POST", "faults") => match serde_json::from_slice::<Fault>(body) {
            Ok(fault) => lock(&shared.faults).add(fault),
            Err(error) => return Answer::message(422, &format!("no such fault: {error}")),
        },
        ("DELETE", "faults") => lock(&shared.faults).clear(),
        ("POST", "restart") => work::restart(shared),
        ("POST", "statuses/frozen") => shared.world().statuses_frozen = true,
        ("POST", "statuses/thawed") => shared.world().statuses_frozen = false,
        _ => return Answer::no_route(),
    }
    Answer::message(200, "done")
}
