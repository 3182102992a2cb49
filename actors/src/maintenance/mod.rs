//! Maintenance: what is done once a night, so that a pool that nobody looks after stays as it was. When it is due and
//! what it means for which slot, bot and disk is in [`plan`] and [`timetable`]; how it is done, step by step, in [`run`].

pub mod actor;
pub mod plan;
mod retention;
pub mod run;
pub mod timetable;

use crate::ids::HostName;
use crate::ports::ImageDigest;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use timetable::Timetable;

/// What maintenance goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceSettings {
    /// When it is due; `None`: only when an operator asks.
    pub timetable: Option<Timetable>,
    /// Idle slots that did not change for this long have their image made present anew; `None`: none have.
    pub refresh_idle: Option<TimeDelta>,
    /// What is kept how long.
    pub retention: Retention,
    /// A disk with less than this free, in percent, is warned of; 0: none is.
    pub disk_free_percent: u32,
}

impl Default for MaintenanceSettings {
    /// No timetable, everything is kept for ever.
    fn default() -> Self {
        Self {
            timetable: None,
            refresh_idle: Some(TimeDelta::days(7)),
            retention: Retention::default(),
            disk_free_percent: 10,
        }
    }
}

/// How long things are kept after their bot has ended; `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Recordings, with all their objects.
    pub recordings: Option<TimeDelta>,
    /// Lines of bots' histories.
    pub events: Option<TimeDelta>,
    /// Bots themselves, and with them what is left of the two above.
    pub bots: Option<TimeDelta>,
    /// What containers printed, and their work folders.
    pub logs: Option<TimeDelta>,
}

/// An image on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostImage {
    /// Where.
    pub host: HostName,
    /// Its reference.
    pub image: String,
}

/// What image references meant, by host.
pub type Images = BTreeMap<HostImage, ImageDigest>;

/// What is remembered of maintenance, as the one row of `maintenance` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceRow {
    /// What was due before this was done, or is under way, or another timetable's.
    pub due_from: DateTime<Utc>,
    /// The timetable that this is said of, and "" for none; `None`: not known, a server wrote it that kept none.
    pub timetable: Option<String>,
    /// The last run, or the one under way.
    pub run: Option<Run>,
    /// What the images meant when they were last made present or looked at.
    pub images: Images,
    /// When the clock leapt ahead, by itself, where it is not trusted yet with how old things are; `None`: it is.
    pub doubted_from: Option<DateTime<Utc>>,
}

impl MaintenanceRow {
    /// Nothing was ever done; what is due from now on will be.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { due_from: now, timetable: None, run: None, images: Images::new(), doubted_from: None }
    }

    /// What will be known of the runs before the next.
    pub fn before(&self) -> Before {
        Before { ended_at: self.ended_at(), undone_from: Some(self.undone_from()) }
    }

    /// When a run last came to its end, whatever came of those after it.
    pub fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.run.as_ref().and_then(|run| run.ended_at.or(run.before.ended_at))
    }

    /// What was due from then on has not been done to its end.
    pub fn undone_from(&self) -> DateTime<Utc> {
        let undone = self.run.as_ref().filter(|run| run.ended_at.is_none());
        undone.and_then(|run| run.before.undone_from).unwrap_or(self.due_from)
    }

    /// Goes by this timetable from now on: what another would have had due before now is nobody's, and what a clock said
    /// that was ahead puts nothing off. Says whether there is anything to store.
    pub fn go_by(&mut self, timetable: Option<&Timetable>, now: DateTime<Utc>) -> bool {
        let named = Some(timetable.map(ToString::to_string).unwrap_or_default());
        if self.timetable == named {
            let was_ahead = self.due_from - now > plan::LATE;
            if was_ahead {
                self.due_from = now;
            }
            return was_ahead;
        }
        if self.timetable.is_some() {
            self.due_from = now;
            if let Some(run) = &mut self.run {
                run.before.undone_from = None;
            }
        }
        self.timetable = named;
        true
    }
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// It was its time.
    Timetable,
    /// Its time was while no server was up.
    MadeUp,
    /// A run before this one was cut off by the end of its server.
    Resumed,
    /// An operator asked.
    Operator,
}

/// One run of maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Why it began.
    pub trigger: Trigger,
    /// Counted up where a run is resumed, from 1.
    pub attempt: u32,
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// When it ended; `None`: it is under way, or was cut off.
    pub ended_at: Option<DateTime<Utc>>,
    /// What was done, in order; the last one may be under way.
    pub steps: Vec<StepReport>,
    /// What is known of the runs before it.
    #[serde(default)]
    pub before: Before,
}

/// What is known of the runs before one, for as long as that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Before {
    /// When the last that came to its end did; `None`: none did, as far as is known.
    pub ended_at: Option<DateTime<Utc>>,
    /// What was due from then on none of them has done to its end; `None`: not known.
    pub undone_from: Option<DateTime<Utc>>,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Slots in error try to recover.
    Recover,
    /// Images whose tag has moved, or that idle slots rely on for long, are made present anew.
    Refresh,
    /// Containers that no slot wants are looked for twice, and removed.
    Orphans,
    /// What ended bots left in the store is removed when it is old enough.
    Retention,
    /// What ended containers left on their hosts is removed when it is old enough.
    Logs,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Recover, Self::Refresh, Self::Orphans, Self::Retention, Self::Logs];

    /// The name as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Refresh => "refresh",
            Self::Orphans => "orphans",
            Self::Retention => "retention",
            Self::Logs => "logs",
        }
    }
}

/// What came of a part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// When it ended; `None`: it is under way.
    pub ended_at: Option<DateTime<Utc>>,
    /// What was done, by what it was done to.
    pub done: BTreeMap<String, u64>,
    /// Things that could not be done; the next run tries again.
    pub failures: u64,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

impl StepReport {
    /// A part that begins.
    pub fn begin(step: Step) -> Self {
        Self { step, ended_at: None, done: BTreeMap::new(), failures: 0, first_failure: None }
    }

    /// Counts what was done.
    pub fn did(&mut self, what: &str, count: u64) {
        *self.done.entry(what.to_owned()).or_default() += count;
    }

    /// Counts something that could not be done.
    pub fn failed(&mut self, why: impl Into<String>) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| why.into());
    }
}
