//! One operation at a time on what a key names.

use super::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::error::Elapsed;

/// See the module. Holds only keys that someone is at.
pub(super) struct Turns<K>(Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Turns<K> {
    /// Waits for its turn; it lasts as long as what is returned.
    pub(super) async fn take(&self, key: K, limit: Duration) -> Result<OwnedMutexGuard<()>, Elapsed> {
        let turn = {
            let mut turns = lock(&self.0);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key).or_default())
        };
        tokio::time::timeout(limit, turn.lock_owned()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_is_at_a_key_at_a_time_and_nobody_is_remembered() {
        let (turns, no_time) = (Turns::default(), Duration::from_millis(1));
        let first = turns.take(1, no_time).await.expect("nobody is there");
        assert!(turns.take(1, no_time).await.is_err());
        assert!(turns.take(2, no_time).await.is_ok());
        drop(first);
        assert!(turns.take(1, no_time).await.is_ok());
        drop(turns.take(3, no_time).await);
        assert_eq!(lock(&turns.0).len(), 1, "only the last one asked for");
    }
}
