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

/// A key that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveKey {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub user: UserId,
}

/// By what a key is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sought {
    /// The key itself, as its SHA-256.
    Hash([u8; 32]),
    /// Its number, which the session of a browser names.
    Id(i64),
}

/// Whose keys are, as the database said lately.
#[derive(Default)]
pub struct ApiKeys {
    known: Mutex<HashMap<Sought, (LiveKey, Instant)>>,
}

impl ApiKeys {
    /// The key that somebody presents; `None`: there is none, or it was revoked.
    pub async fn find(&self, pool: &Pool, key: &str) -> Result<Option<LiveKey>, QueryError> {
        self.look(pool, Sought::Hash(hash_of_key(key))).await
    }

    /// The user's key of this number; `None`: there is none, or it was revoked.
    pub async fn get(&self, pool: &Pool, id: i64, user: UserId) -> Result<Option<LiveKey>, QueryError> {
        // After a restore a number may be another user's.
        Ok(self.look(pool, Sought::Id(id)).await?.filter(|key| key.user == user))
    }

    async fn look(&self, pool: &Pool, sought: Sought) -> Result<Option<LiveKey>, QueryError> {
        if let Some(key) = self.known(&sought) {
            return Ok(Some(key));
        }
        let stored = match sought {
            Sought::Hash(hash) => pool.find_api_key(&hash).await?,
            Sought::Id(id) => pool.get_api_key(id).await?,
        };
        let key = stored.map(|key| LiveKey { id: key.id, user: key.user_id });
        if let Some(key) = key {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= CACHED_MAX {
                known.clear();
            }
            known.insert(sought, (key, Instant::now()));
        }
        Ok(key)
    }

    fn known(&self, sought: &Sought) -> Option<LiveKey> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(sought).filter(|(_, at)| at.elapsed() < CACHED_FOR).map(|(key, _)| *key)
    }
}
