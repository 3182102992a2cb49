//! Settings that change while the server runs: the file and the environment are read again, checked, and what may
//! change is told to the actors. What may not is named, and stays as it is until the next start.

use super::engine::{Engine, EngineError};
use super::settings as wanted;
use crate::config::{LoadError, Loaded, Settings, Source, Values};
use crate::http::state::Leading;
use crate::metrics::Metrics;
use meeboter_actors::maintenance::actor as maintenance;
use meeboter_actors::pool::message as pool;
use meeboter_actors::scale::actor as scale;
use meeboter_actors::supervision::tell;
use meeboter_actors::tree::Tree;
use serde::Serialize;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// What may change while the server runs, by the beginning of the key.
const LIVE: [&str; 5] = ["pool.", "hosts.", "images.", "scale.", "maintenance."];

/// The one key of a platform that the driver alone goes by, which reads it at the start.
const LEGACY: &str = ".legacy_env";

/// What the deadline of starts follows from where they stand in a line of the driver's, as with Coolify: they count for
/// the pool at once, and for the deadline from the next start on.
const BOUNDS_OF_STARTS: [&str; 2] = ["pool.max_size", "hosts.local.capacity"];

/// See the module.
pub struct Reloader {
    source: Source,
    engine: Engine,
    metrics: Arc<Metrics>,
    running: RwLock<Running>,
    /// The values of the start, and the deadline of starts that followed from them.
    at_start: Values,
    deadline_of_starts: Duration,
    /// One at a time, so that what is told last is what was read last.
    turn: Mutex<()>,
}

struct Running {
    settings: Arc<Settings>,
    values: Values,
}

/// What came of reading the settings again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// Keys whose new values count from now on.
    pub applied: Vec<String>,
    /// Keys whose new values count from the next start on.
    pub needs_restart: Vec<String>,
}

/// Why settings were not read again; all are as before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They cannot be read, or one of them cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An engine of them cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The thread that reads them broke off.
    #[error("the settings were not read")]
    Broken(#[from] tokio::task::JoinError),
}

impl Reloader {
    /// Begins with what was read at the start: its platforms are served from now on.
    pub(super) fn new(source: Source, loaded: &Loaded, engine: Engine, metrics: Arc<Metrics>) -> Self {
        serve(&metrics, &loaded.settings);
        let running = Running { settings: Arc::new(loaded.settings.clone()), values: loaded.values.clone() };
        Self {
            source,
            engine,
            metrics,
            running: RwLock::new(running),
            at_start: loaded.values.clone(),
            deadline_of_starts: wanted::timing(&loaded.settings).deploy,
            turn: Mutex::default(),
        }
    }

    /// The settings that count now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.running.read().unwrap_or_else(PoisonError::into_inner).settings)
    }

    /// Keeps them as they are for as long as this is held: while a server begins to lead by them.
    pub(super) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Reads them again. On a standby there is nobody to tell; they count when it leads.
    pub async fn reload(&self, leading: &OnceLock<Leading>) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        let source = self.source.clone();
        let loaded = tokio::task::spawn_blocking(move || source.load()).await??;
        let settings = Arc::new(merged(&self.settings(), loaded.settings));
        self.engine.configure(&settings)?;
        serve(&self.metrics, &settings);
        let reloaded = {
            let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
            let mut reloaded = compare(&running.values, &loaded.values);
            if wanted::timing(&settings).deploy != self.deadline_of_starts {
                reloaded.needs_restart.extend(bounds_changed(&self.at_start, &loaded.values));
            }
            running.settings = Arc::clone(&settings);
            running.values.retain(|key, _| !is_live(key));
            running.values.extend(loaded.values.into_iter().filter(|(key, _)| is_live(key)));
            reloaded
        };
        if let Some(leading) = leading.get() {
            apply(&settings, &leading.tree);
        }
        Ok(reloaded)
    }
}

fn serve(metrics: &Metrics, settings: &Settings) {
    metrics.serve(settings.served_platforms().map(|(key, _)| key.as_str()));
}

fn apply(settings: &Settings, tree: &Tree) {
    tell(&tree.pool, pool::Configure { settings: wanted::pool(settings) });
    tell(&tree.scaler, scale::Configure { settings: wanted::scale(settings) });
    tell(&tree.maintainer, maintenance::Configure { settings: wanted::maintenance(settings) });
}

/// The running settings with what may change as it was read.
fn merged(running: &Settings, read: Settings) -> Settings {
    let Settings { pool, hosts, images, scale, maintenance, .. } = read;
    Settings { pool, hosts, images, scale, maintenance, ..running.clone() }
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|beginning| key.starts_with(beginning)) && !key.ends_with(LEGACY)
}

/// Those of [`BOUNDS_OF_STARTS`] that are not as they were at the start.
fn bounds_changed(at_start: &Values, read: &Values) -> impl Iterator<Item = String> {
    let changed = BOUNDS_OF_STARTS.into_iter().filter(|key| at_start.get(*key) != read.get(*key));
    changed.map(str::to_owned)
}

/// The keys whose values differ, or that only one of the two has.
fn compare(running: &Values, read: &Values) -> Reloaded {
    let mut keys: Vec<&String> = running.keys().chain(read.keys()).collect();
    keys.sort();
    keys.dedup();
    // A platform that was not there before had no bots of the older design either.
    let value = |values: &Values, key: &str| {
        let absent = || key.ends_with(LEGACY).then(|| "false".to_owned());
        values.get(key).cloned().or_else(absent)
    };
    let changed = keys.into_iter().filter(|key| value(running, key) != value(read, key)).cloned();
    let (applied, needs_restart) = changed.partition(|key| is_live(key));
    Reloaded { applied, needs_restart }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn read(text: &str) -> Loaded {
        config::load(Some(("own.toml", text)), []).expect("good")
    }

    #[test]
    fn what_may_change_is_told_apart_from_what_may_not() {
        let (before, after) = (
            read("[server]\nport = 1\n[hosts.second]\ncapacity = 3\n"),
            read(
                "[server]\nport = 2\n[pool]\nmax_size = 7\n[pool.platforms.my-video]\nmax_size = 1\n[maintenance]\ncron = \"\"\n",
            ),
        );
        let changes = compare(&before.values, &after.values);
        assert_eq!(changes.needs_restart, ["server.port"]);
        let legacy = read("[driver]\nkind = \"process\"\n[pool.platforms.my-video]\nmax_size = 1\n");
        assert!(!compare(&before.values, &legacy.values).applied.iter().any(|key| key.ends_with(LEGACY)));
        assert!(!is_live("pool.platforms.zoom.legacy_env"));
        for key in
            ["hosts.second.capacity", "maintenance.cron", "pool.max_size", "pool.platforms.my-video.max_size"]
        {
            assert!(changes.applied.iter().any(|applied| applied == key), "{key}: {changes:?}");
        }
        assert_eq!(compare(&after.values, &after.values), Reloaded::default());
        // Only what changed of what bounds the deadline of starts.
        assert_eq!(bounds_changed(&before.values, &after.values).collect::<Vec<_>>(), ["pool.max_size"]);
        let merged = merged(&before.settings, after.settings);
        assert_eq!((merged.server.port, merged.pool.max_size), (1, 7));
    }

    #[test]
    fn what_the_engine_hears_of_is_what_was_read_and_what_may_not_change_stays() {
        let before = read("[server]\nport = 1\n[hosts.local]\ncapacity = 3\n").settings;
        let after = read("[server]\nport = 2\n[hosts.local]\ncapacity = 7\n").settings;
        let settings = merged(&before, after);
        assert_eq!((settings.server.port, wanted::bots_max(&settings)), (1, 7));
    }
}
