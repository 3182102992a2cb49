//! One look for many: whoever wants to know how things are shares the latest answer, as long as it is fresh enough. A look
//! that failed is shared too, so that a hundred who wait do not ask a hundred times; it never passes for an empty one.

use super::error::ApiError;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// What a look that began at a time came to.
type Looked<T> = (Instant, Result<Arc<T>, ApiError>);

/// See the module.
pub(super) struct SharedLook<T> {
    latest: Mutex<Option<Looked<T>>>,
}

impl<T> Default for SharedLook<T> {
    fn default() -> Self {
        Self { latest: Mutex::new(None) }
    }
}

impl<T> SharedLook<T> {
    /// The latest look that began at `since` or later; a new one where there is none.
    pub(super) async fn since(
        &self,
        since: Instant,
        look: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<(Instant, Arc<T>), ApiError> {
        let mut latest = self.latest.lock().await;
        if let Some((began, outcome)) = latest.as_ref().filter(|(began, _)| *began >= since) {
            return outcome.clone().map(|seen| (*began, seen));
        }
        let began = Instant::now();
        let outcome = look.await.map(Arc::new);
        *latest = Some((began, outcome.clone()));
        outcome.map(|seen| (began, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_look_is_shared_while_it_is_fresh_and_so_is_its_failure() {
        let shared = SharedLook::default();
        let before = Instant::now();
        let first = shared.since(before, async { Ok(1) }).await.expect("seen");
        let second = shared.since(before, async { Ok(2) }).await.expect("seen");
        assert_eq!((*first.1, *second.1), (1, 1));
        let later = first.0 + Duration::from_nanos(1);
        let failure = ApiError::Unanswered { request: "GET /x".into(), detail: "cut".into() };
        let failed = shared.since(later, async { Err(failure.clone()) }).await;
        assert_eq!(failed.map(|(_, seen)| *seen), Err(failure.clone()));
        assert_eq!(shared.since(later, async { Ok(3) }).await.map(|(_, seen)| *seen), Err(failure));
    }
}
