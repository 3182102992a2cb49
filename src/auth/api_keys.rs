//! API keys: making them, and finding out whose one is without asking the database every time.

use crate::store::pool::{Pool, QueryError};
use crate::store::queries::hash_of_key;
use meeboter_actors::ids::UserId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long an answer of the database counts: a revoked key works for this much longer at most.
const CACHED_FOR: Duration = Duration::from_secs(10);
/// Keys remembered; past that all are forgotten.
const CACHED_MAX: usize = 10_000;

/// Characters that are stored of a key, for people to know it by.
const PREFIX_CHARS: usize = 8;

/// A new key: 256 random bits behind a prefix that says what it is.
pub fn new_key() -> String {
    format!("mb_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The first characters of a key, which are stored beside its SHA-256.
pub fn prefix_of(key: &str) -> String {
    key.chars().take(PREFIX_CHARS).collect()
}

/// Whose keys are, as the database said lately.
#[derive(Default)]
pub struct ApiKeys {
    known: Mutex<HashMap<[u8; 32], (UserId, Instant)>>,
}

impl ApiKeys {
    /// Whose key this is; `None`: nobody's.
    pub async fn user_of(&self, pool: &Pool, key: &str) -> Result<Option<UserId>, QueryError> {
        let hash = hash_of_key(key);
        if let Some(user) = self.known(&hash) {
            return Ok(Some(user));
        }
        let user =
            pool.find_api_key(&hash).await?.filter(|key| key.revoked_at.is_none()).map(|key| key.user_id);
        if let Some(user) = user {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= CACHED_MAX {
                known.clear();
            }
            known.insert(hash, (user, Instant::now()));
        }
        Ok(user)
    }

    fn known(&self, hash: &[u8; 32]) -> Option<UserId> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|(_, at)| at.elapsed() < CACHED_FOR).map(|(user, _)| *user)
    }
}
