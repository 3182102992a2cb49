//! Users' plans, without asking the database every time.

use crate::store::pool::{Pool, QueryError};
use meeboter_actors::ids::UserId;
use meeboter_actors::queue::Plan;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer of the database counts: a changed plan is in force this much later at most.
const CACHED_FOR: Duration = Duration::from_secs(10);
/// Users remembered; past that all are forgotten.
const CACHED_MAX: usize = 10_000;

/// The plans that users have, as the database said lately.
#[derive(Default)]
pub struct Plans {
    known: Mutex<HashMap<UserId, (Plan, Instant)>>,
}

impl Plans {
    /// The plan of this user.
    pub async fn of(&self, pool: &Pool, user: UserId) -> Result<Plan, QueryError> {
        if let Some(plan) = self.known(user) {
            return Ok(plan);
        }
        // A user that is gone has no bots to come first with.
        let plan = pool.get_user(user).await?.map(|user| user.plan).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CACHED_MAX {
            known.clear();
        }
        known.insert(user, (plan, Instant::now()));
        Ok(plan)
    }

    fn known(&self, user: UserId) -> Option<Plan> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&user).filter(|(_, at)| at.elapsed() < CACHED_FOR).map(|(plan, _)| *plan)
    }
}
