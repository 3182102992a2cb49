//! A driver whose calls are counted and timed. Waits for an exit are not: they last as long as the meeting. A call that
//! is given up before its answer came had none.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{BotId, ContainerId, ContainerKey, HostName};
use meeboter_actors::lead::LeadingDriver;
use meeboter_actors::ports::{
    CallOutcome, Driver, DriverError, EngineEvent, ImageDigest, Lead, ListedContainer, Measure, Meter,
    PrepareRequest, Presence, PullProgress, Pulled, StartRequest, StopRequest,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// See the module.
pub struct MeteredDriver {
    driver: Arc<dyn Driver>,
    meter: Arc<dyn Meter>,
}

impl MeteredDriver {
    /// Counts the calls to `driver`.
    pub fn new(driver: Arc<dyn Driver>, meter: Arc<dyn Meter>) -> Self {
        Self { driver, meter }
    }

    async fn timed<T>(
        &self,
        call: &'static str,
        outcome: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let mut timed = Timed::begin(&*self.meter, call);
        let outcome = outcome.await;
        timed.outcome = match &outcome {
            Ok(_) => CallOutcome::Done,
            Err(DriverError { answered: true, .. }) => CallOutcome::Refused,
            Err(DriverError { answered: false, .. }) => CallOutcome::Unanswered,
        };
        outcome
    }
}

/// `driver` as a leader's actors have it. Inside of what waits for the lead: a call that is held back because the database
/// is silent never reached the engine, and says nothing of it.
pub fn of_a_leader(driver: Arc<dyn Driver>, lead: Arc<dyn Lead>, meter: Arc<dyn Meter>) -> Arc<dyn Driver> {
    Arc::new(LeadingDriver::new(Arc::new(MeteredDriver::new(driver, meter)), lead))
}

/// A call under way; counted when it is dropped, so that those count that somebody's deadline cuts off.
struct Timed<'a> {
    meter: &'a dyn Meter,
    call: &'static str,
    began: Instant,
    outcome: CallOutcome,
}

impl<'a> Timed<'a> {
    fn begin(meter: &'a dyn Meter, call: &'static str) -> Self {
        Self { meter, call, began: Instant::now(), outcome: CallOutcome::Unanswered }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let (call, outcome, took) = (self.call, self.outcome, self.began.elapsed());
        self.meter.record(Measure::DriverCalled { call, outcome, took });
    }
}

#[async_trait]
impl Driver for MeteredDriver {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.timed("pull", self.driver.pull(host, image, progress)).await
    }

    fn prepares(&self, host: &HostName) -> bool {
        self.driver.prepares(host)
    }

    fn start_wait(&self, bot: BotId) -> Option<Duration> {
        self.driver.start_wait(bot)
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        self.timed("prepare", self.driver.prepare(request)).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        self.timed("start", self.driver.start(request)).await
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.driver.wait_exit(host, key).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.timed("stop", self.driver.stop(request)).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.timed("inspect", self.driver.inspect(host, key)).await
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.timed("list", self.driver.list(host)).await
    }

    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.timed("resolve", self.driver.resolve(host, image)).await
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        self.timed("logs", self.driver.logs(host, key, lines)).await
    }

    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        self.timed("sweep", self.driver.sweep(host, wanted, before)).await
    }

    /// Lasts as long as the engine has something to say: neither counted nor timed.
    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.driver.watch(host, events).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use meeboter_actors::testing::sample;
    use meeboter_actors::testing::stub::{Stub, StubDriver};
    use std::sync::Mutex;

    /// What was counted.
    #[derive(Default)]
    struct Counted(Mutex<Vec<(&'static str, CallOutcome)>>);

    impl Counted {
        fn calls(&self) -> Vec<(&'static str, CallOutcome)> {
            self.0.lock().expect("nobody panics with it").clone()
        }
    }

    impl Meter for Counted {
        fn record(&self, measure: Measure<'_>) {
            if let Measure::DriverCalled { call, outcome, .. } = measure {
                self.0.lock().expect("nobody panics with it").push((call, outcome));
            }
        }
    }

    /// Refuses pulls, and answers no listing.
    struct Half;

    #[async_trait]
    impl Stub for Half {
        async fn pull(&self, _: &HostName, _: &str) -> Result<Pulled, DriverError> {
            Err(DriverError { message: "no such image".to_owned(), answered: true, retryable: false })
        }

        async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
            std::future::pending().await
        }
    }

    /// Holds for nobody.
    struct NoLead;

    #[async_trait]
    impl Lead for NoLead {
        fn holds(&self) -> bool {
            false
        }

        async fn proven(&self) {
            std::future::pending().await
        }
    }

    fn engine() -> Arc<dyn Driver> {
        Arc::new(StubDriver(Arc::new(Half)))
    }

    #[test]
    fn a_call_that_is_given_up_had_no_answer() {
        let (counted, host) = (Arc::new(Counted::default()), HostName::local());
        let driver = MeteredDriver::new(engine(), counted.clone());
        let pulled = driver.pull(&host, "bot:1", watch::Sender::default()).now_or_never();
        assert!(pulled.expect("is answered").is_err());
        assert!(driver.list(&host).now_or_never().is_none(), "its caller waits no longer");
        assert_eq!(counted.calls(), [("pull", CallOutcome::Refused), ("list", CallOutcome::Unanswered)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_lead_is_no_call_to_the_engine() {
        let (counted, host) = (Arc::new(Counted::default()), HostName::local());
        let driver = of_a_leader(engine(), Arc::new(NoLead), counted.clone());
        let refused = driver.sweep(&host, &BTreeSet::new(), sample::now()).await.expect_err("nobody leads");
        assert!(refused.message.contains("who leads"), "{refused}");
        assert_eq!(counted.calls(), []);
    }
}
