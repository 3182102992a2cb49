//! Where drivers' calls run: in tasks of their own, on the runtime that the driver was made in. An actor that dies while
//! it waits cuts no order off in the middle; what only waits ends with whoever waits for it.

use meeboter_actors::ports::DriverError;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Tasks(Handle);

impl Tasks {
    /// Tasks on the present runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn here() -> Self {
        Self(Handle::current())
    }

    /// Runs an order to its end, whatever becomes of the caller.
    pub(super) async fn finish<T, E>(
        &self,
        order: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        E: Send + 'static,
        DriverError: From<E>,
    {
        match self.0.spawn(order).await {
            Ok(outcome) => outcome.map_err(DriverError::from),
            Err(error) => Err(cut_off(&error)),
        }
    }

    /// Waits for as long as the caller does.
    pub(super) async fn wait<T, E>(
        &self,
        wait: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        E: Send + 'static,
        DriverError: From<E>,
    {
        let mut wait = AbortOnDrop(self.0.spawn(wait));
        match (&mut wait.0).await {
            Ok(outcome) => outcome.map_err(DriverError::from),
            Err(error) => Err(cut_off(&error)),
        }
    }
}

fn cut_off(error: &JoinError) -> DriverError {
    let message = format!("the driver's task was cut off: {error}");
    DriverError { message, answered: false, retryable: true }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_order_outlives_its_caller_and_a_wait_does_not() {
        let tasks = Tasks::here();
        let (done, finished) = oneshot::channel();
        let (begun, has_begun) = oneshot::channel::<()>();
        let (go, may_go) = oneshot::channel::<()>();
        let order = async move {
            begun.send(()).ok();
            may_go.await.ok();
            done.send(()).ok();
            Ok::<(), DriverError>(())
        };
        let caller = tokio::spawn({
            let tasks = tasks.clone();
            async move { tasks.finish(order).await }
        });
        has_begun.await.expect("begun");
        caller.abort();
        go.send(()).expect("it waits");
        finished.await.expect("it goes on without its caller");

        let (held, released) = oneshot::channel::<()>();
        let wait = async move {
            let _held = held;
            std::future::pending::<Result<(), DriverError>>().await
        };
        let waiting = tasks.wait(wait);
        assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
        assert!(released.await.is_err(), "what it held is given up");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_an_engine_that_did_not_answer() {
        let broken = async { if true { panic!("a bug") } else { Ok::<(), DriverError>(()) } };
        let error = Tasks::here().finish(broken).await.expect_err("broken");
        assert!(!error.answered && error.message.contains("cut off"), "{error:?}");
    }
}
