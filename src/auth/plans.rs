//! Users' plans, without asking the database every time.

use crate::store::pool::{Pool, QueryError};
use meeboter_actors::ids::UserId;
use meeboter_actors::queue::Plan;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer of the database counts: a plan that was changed elsewhere is in force this much later at most.
const CACHED_FOR: Duration = Duration::from_secs(10);
/// Users remembered; past that all are forgotten.
const CACHED_MAX: usize = 10_000;

/// The plans that users have, as the database said lately.
#[derive(Default)]
pub struct Plans {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    plans: HashMap<UserId, (Plan, Instant)>,
    /// How often a plan was forgotten: an answer from before that is not remembered.
    forgotten: u64,
}

impl Plans {
    /// The plan of this user.
    pub async fn of(&self, pool: &Pool, user: UserId) -> Result<Plan, QueryError> {
        let asked_at = match self.known().plan_of(user) {
            Ok(plan) => return Ok(plan),
            Err(forgotten) => forgotten,
        };
        // A user that is gone has no bots to come first with.
        let plan = pool.get_user(user).await?.map(|user| user.plan).unwrap_or_default();
        self.known().remember(user, plan, asked_at);
        Ok(plan)
    }

    /// Has the database asked again for this user: its plan was changed here.
    pub fn forget(&self, user: UserId) {
        self.known().forget(user);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The plan, where it is known; else what to [`remember`](Self::remember) an answer with.
    fn plan_of(&self, user: UserId) -> Result<Plan, u64> {
        let known = self.plans.get(&user).filter(|(_, at)| at.elapsed() < CACHED_FOR);
        known.map(|(plan, _)| *plan).ok_or(self.forgotten)
    }

    fn remember(&mut self, user: UserId, plan: Plan, asked_at: u64) {
        if asked_at != self.forgotten {
            return;
        }
        if self.plans.len() >= CACHED_MAX {
            self.plans.clear();
        }
        self.plans.insert(user, (plan, Instant::now()));
    }

    fn forget(&mut self, user: UserId) {
        self.plans.remove(&user);
        self.forgotten += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_plan_is_not_covered_by_an_answer_from_before() {
        let (mut known, user) = (Known::default(), UserId(7));
        let before = known.plan_of(user).expect_err("nothing is known yet");
        known.remember(user, Plan::Free, before);
        assert_eq!(known.plan_of(user), Ok(Plan::Free));
        let other = UserId(8);
        let before = known.plan_of(other).expect_err("nothing is known of this one");
        known.forget(user);
        let after = known.plan_of(user).expect_err("it was forgotten");
        known.remember(other, Plan::Free, before);
        assert_eq!(known.plan_of(other), Err(after), "the answer may be older than the change");
        known.remember(user, Plan::Enterprise, after);
        assert_eq!(known.plan_of(user), Ok(Plan::Enterprise));
    }
}
