//! What maintenance means: when a run begins, which images are made present anew, what of an ended bot goes, which disk
//! is nearly full. Pure: no I/O, no clock, no randomness.

use super::timetable::Timetable;
use super::{HostImage, Images, MaintenanceRow, Retention, Trigger};
use crate::ports::Disk;
use crate::slot::{Slot, SlotState};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::time::Duration;

/// A run that begins this long after its time was missed; the actor looks more often than that. A clock is put right by
/// less than that now and then, which must not have a night looked after twice.
pub(super) const LATE: TimeDelta = TimeDelta::minutes(2);
/// Runs that are cut off by the end of their server before it is left at that: one of them may be why the server ended.
const ATTEMPTS_MAX: u32 = 2;
/// A clock that is put right after a long time without a time server is off by less.
pub(super) const LEAP: TimeDelta = TimeDelta::hours(1);
/// So much more than its mark must be free on a disk that was nearly full, in percent, before it has room again: what
/// swings around the mark is one warning.
const ROOM_AGAIN: f64 = 1.0;
/// How long nothing is removed for its age by a clock that leapt.
pub(super) const DOUBT: Duration = Duration::from_secs(24 * 3_600);

/// When the next run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Now, and why.
    Now(Trigger),
    /// Then.
    At(DateTime<Utc>),
    /// Only when an operator asks.
    OnDemand,
}

/// When the next run begins, where none is under way here. However many times were missed, they are one run.
pub fn next_start(row: &MaintenanceRow, timetable: Option<&Timetable>, now: DateTime<Utc>) -> Start {
    let cut_off = row.run.as_ref().filter(|run| run.ended_at.is_none());
    if cut_off.is_some_and(|run| run.attempt < ATTEMPTS_MAX) {
        return Start::Now(Trigger::Resumed);
    }
    match timetable.and_then(|timetable| timetable.next_after(row.due_from)) {
        None => Start::OnDemand,
        Some(due) if due > now => Start::At(due),
        Some(due) if now - due > LATE => Start::Now(Trigger::MadeUp),
        Some(_) => Start::Now(Trigger::Timetable),
    }
}

/// An image that is to be made present anew on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// Which, and where.
    pub image: HostImage,
    /// Whether its reference means something else than it did, as far as is known.
    pub moved: bool,
}

/// The images that slots rely on.
pub fn images_in_use<'a>(slots: impl Iterator<Item = &'a Slot>) -> Vec<HostImage> {
    let mut images: Vec<HostImage> = slots.filter(|slot| is_stored(slot)).map(image_of).collect();
    images.sort();
    images.dedup();
    images
}

/// What is to be made present anew: images whose reference means another thing than it did, and those of slots that are
/// idle for too long. Of a reference that is looked at for the first time nobody knows what it meant when the host pulled
/// it, so it is pulled again, which costs next to nothing where it is the same.
pub fn refreshes<'a>(
    slots: impl Iterator<Item = &'a Slot>,
    meant: &Images,
    means: &Images,
    refresh_idle: Option<TimeDelta>,
    now: DateTime<Utc>,
) -> Vec<Refresh> {
    let mut refreshes: BTreeMap<HostImage, Refresh> = BTreeMap::new();
    for slot in slots.filter(|slot| is_stored(slot)) {
        let image = image_of(slot);
        let moved = means.get(&image).is_some_and(|is| meant.get(&image) != Some(is));
        let idle = matches!(slot.state, SlotState::Idle { .. });
        let for_long = idle && refresh_idle.is_some_and(|limit| now - slot.changed_at >= limit);
        if !moved && !for_long {
            continue;
        }
        refreshes.entry(image.clone()).or_insert(Refresh { image, moved });
    }
    refreshes.into_values().collect()
}

fn is_stored(slot: &Slot) -> bool {
    slot.version > 0 && !matches!(slot.state, SlotState::Retired)
}

fn image_of(slot: &Slot) -> HostImage {
    HostImage { host: slot.host.clone(), image: slot.image.clone() }
}

/// What of an ended bot is old enough to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Its recording, with all objects.
    pub recording: bool,
    /// Its history.
    pub events: bool,
    /// The bot itself; its recording and its history go first.
    pub bot: bool,
}

impl Retention {
    /// What of a bot that ended then goes now.
    pub fn verdict(&self, ended_at: DateTime<Utc>, now: DateTime<Utc>) -> Verdict {
        let goes = |kept: Option<TimeDelta>| kept.is_some_and(|kept| now - ended_at >= kept);
        let bot = goes(self.bots);
        Verdict { recording: bot || goes(self.recordings), events: bot || goes(self.events), bot }
    }

    /// Bots that ended after this keep everything; `None`: all do.
    pub fn horizon(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let shortest = [self.recordings, self.events, self.bots].into_iter().flatten().min()?;
        now.checked_sub_signed(shortest)
    }
}

/// A disk, and whether it is warned of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLine {
    /// As it was last looked at.
    pub disk: Disk,
    /// Less than it should have is free.
    pub nearly_full: bool,
    /// The last look at it was answered.
    pub answers: bool,
}

/// The disks after a look at them, where at least `free_percent` of each should be free; 0: none is warned of. One that the
/// look left out is as it was: nobody knows that it has room.
pub fn after_look(known: &[DiskLine], looked: &[Disk], free_percent: u32) -> Vec<DiskLine> {
    let line = |disk: &Disk, answers, was_nearly_full| {
        let mark = f64::from(free_percent) + if was_nearly_full { ROOM_AGAIN } else { 0.0 };
        let nearly_full = free_percent > 0 && disk.free_percent() < mark;
        DiskLine { disk: disk.clone(), nearly_full, answers }
    };
    let looked_at = |name: &str| looked.iter().find(|disk| disk.name == name);
    let is_known = |disk: &&Disk| known.iter().any(|line| line.disk.name == disk.name);
    let again = known.iter().map(|before| {
        let found = looked_at(&before.disk.name);
        line(found.unwrap_or(&before.disk), found.is_some(), before.nearly_full)
    });
    let new = looked.iter().filter(|disk| !is_known(disk)).map(|disk| line(disk, true, false));
    again.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HostName;
    use crate::maintenance::{Before, Run};
    use crate::ports::ImageDigest;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn nightly() -> Timetable {
        Timetable::parse("0 3 * * *", "UTC").expect("good")
    }

    /// A disk of 1,000 bytes.
    fn disk(name: &str, free_bytes: u64) -> Disk {
        Disk { name: name.to_owned(), free_bytes, total_bytes: 1_000 }
    }

    fn hours(count: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::hours(count)
    }

    fn cut_off(attempt: u32) -> MaintenanceRow {
        let run = Run {
            trigger: Trigger::Timetable,
            attempt,
            began_at: sample::now(),
            ended_at: None,
            steps: vec![],
            before: Before::default(),
        };
        MaintenanceRow { run: Some(run), ..MaintenanceRow::new(sample::now()) }
    }

    #[test]
    fn a_run_begins_at_its_time() {
        let (row, nightly) = (MaintenanceRow::new(sample::now()), nightly());
        assert_eq!(next_start(&row, Some(&nightly), hours(14)), Start::At(hours(15)));
        assert_eq!(next_start(&row, Some(&nightly), hours(15)), Start::Now(Trigger::Timetable));
        let just_in_time = hours(15) + LATE;
        assert_eq!(next_start(&row, Some(&nightly), just_in_time), Start::Now(Trigger::Timetable));
        assert_eq!(next_start(&row, None, hours(100)), Start::OnDemand);
    }

    #[test]
    fn nights_that_were_missed_are_one_run() {
        let (mut row, nightly) = (MaintenanceRow::new(sample::now()), nightly());
        assert_eq!(next_start(&row, Some(&nightly), hours(100)), Start::Now(Trigger::MadeUp));
        row.due_from = hours(100);
        assert!(matches!(next_start(&row, Some(&nightly), hours(100)), Start::At(at) if at > hours(100)));
    }

    #[test]
    fn what_a_clock_that_was_ahead_said_puts_no_night_off() {
        let nightly = nightly();
        let run_at = |now| {
            let mut row = MaintenanceRow::new(sample::now());
            row.go_by(Some(&nightly), sample::now());
            row.due_from = now;
            row
        };
        // A month ahead, and then right again.
        let mut row = run_at(hours(24 * 30));
        assert!(row.go_by(Some(&nightly), hours(14)), "there is something to store");
        assert_eq!(next_start(&row, Some(&nightly), hours(14)), Start::At(hours(15)));
        assert!(!row.go_by(Some(&nightly), hours(15)), "once");
        assert_eq!(next_start(&row, Some(&nightly), hours(15)), Start::Now(Trigger::Timetable));
        // A clock that is put right by seconds does not have a night looked after twice.
        let mut row = run_at(hours(15));
        assert!(!row.go_by(Some(&nightly), hours(15) - LATE));
        assert!(matches!(next_start(&row, Some(&nightly), hours(15)), Start::At(at) if at == hours(39)));
    }

    #[test]
    fn what_another_timetable_had_due_is_not_undone() {
        let mut row = MaintenanceRow { timetable: Some(String::new()), ..cut_off(2) };
        let run = row.run.as_mut().expect("was cut off");
        run.before.undone_from = Some(hours(-1_000));
        assert_eq!(row.undone_from(), hours(-1_000));
        row.go_by(Some(&nightly()), hours(1));
        assert_eq!(row.undone_from(), hours(1));
    }

    #[test]
    fn a_run_that_was_cut_off_is_resumed_once() {
        assert_eq!(next_start(&cut_off(1), None, hours(1)), Start::Now(Trigger::Resumed));
        assert_eq!(next_start(&cut_off(2), None, hours(1)), Start::OnDemand);
        assert_eq!(next_start(&cut_off(2), Some(&nightly()), hours(1)), Start::At(hours(15)));
    }

    #[test]
    fn an_image_is_in_use_once_wherever_stored_slots_rely_on_it() {
        let [one, two, unstored, retired] = [1, 2, 3, 4].map(sample::idle_slot);
        let two = Slot { host: HostName("other".into()), ..two };
        let unstored = Slot { version: 0, image: "unstored:1".into(), ..unstored };
        let retired = Slot { state: SlotState::Retired, image: "retired:1".into(), ..retired };
        let slots = [&two, &one, &unstored, &retired, &two];
        assert_eq!(images_in_use(slots.into_iter()), [image_of(&one), image_of(&two)]);
    }

    fn digests(of: &Slot, digest: &str) -> Images {
        [(image_of(of), ImageDigest(digest.to_owned()))].into()
    }

    #[test]
    fn a_moved_tag_is_pulled_for_idle_slots_and_busy_ones() {
        let (idle, busy) = (sample::idle_slot(1), sample::busy_slot(2));
        let (was, is) = (digests(&idle, "a"), digests(&idle, "b"));
        let none = Images::new();
        let moved = |meant, means| refreshes([&idle, &busy].into_iter(), meant, means, None, sample::now());
        let expected = Refresh { image: image_of(&idle), moved: true };
        assert_eq!(moved(&was, &is), std::slice::from_ref(&expected));
        assert_eq!(moved(&none, &is), [expected], "nobody knows what was pulled");
        assert_eq!(moved(&was, &was), []);
        assert_eq!(moved(&was, &none), [], "a registry that does not answer has moved nothing");
        assert_eq!(refreshes([&busy].into_iter(), &was, &is, None, sample::now()).len(), 1);
    }

    #[test]
    fn an_image_is_pulled_again_where_a_slot_was_idle_for_long_enough() {
        let (fresh, old) =
            (sample::idle_slot(1), Slot { changed_at: hours(-24 * 7), ..sample::idle_slot(2) });
        let elsewhere = Slot {
            host: HostName("other".into()),
            ..Slot { changed_at: hours(-24 * 8), ..sample::idle_slot(3) }
        };
        let none = Images::new();
        let limit = Some(TimeDelta::days(7));
        let found = refreshes([&fresh, &old, &elsewhere].into_iter(), &none, &none, limit, sample::now());
        let hosts: Vec<_> =
            found.iter().map(|refresh| (refresh.image.host.0.as_str(), refresh.moved)).collect();
        assert_eq!(hosts, [("local", false), ("other", false)]);
        assert_eq!(refreshes([&fresh].into_iter(), &none, &none, limit, sample::now()), []);
        let earlier =
            refreshes([&old].into_iter(), &none, &none, limit, sample::now() - TimeDelta::seconds(1));
        assert_eq!(earlier, []);
        assert_eq!(refreshes([&old].into_iter(), &none, &none, None, sample::now()), []);
    }

    #[test]
    fn a_disk_is_warned_of_below_its_mark() {
        let none = Disk { name: "none".into(), free_bytes: 0, total_bytes: 0 };
        let warned = |disk: Disk, percent| after_look(&[], &[disk], percent)[0].nearly_full;
        assert!(warned(disk("data", 99), 10));
        assert!(!warned(disk("data", 100), 10) && !warned(none, 10));
        assert!(!warned(disk("data", 99), 0), "none is warned of");
    }

    #[test]
    fn a_disk_has_room_again_when_clearly_more_than_its_mark_is_free() {
        let mut lines = Vec::new();
        let mut warned = |free_bytes, percent| {
            lines = after_look(&lines, &[disk("data", free_bytes)], percent);
            lines[0].nearly_full
        };
        let swings = [99, 101, 99, 109].map(|free_bytes| warned(free_bytes, 10));
        assert_eq!(swings, [true; 4], "around the mark");
        assert!(!warned(110, 10));
        assert!(!warned(101, 10), "and is not warned of before it is below its mark again");
        assert!(warned(99, 10) && !warned(99, 0), "none is warned of");
    }

    #[test]
    fn a_disk_that_cannot_be_looked_at_stays_as_it_was() {
        let lines = after_look(&[], &[disk("data", 50), disk("bots", 500)], 10);
        let lines = after_look(&lines, &[disk("bots", 400)], 10);
        let seen = |lines: &[DiskLine]| {
            let of = |line: &DiskLine| (line.disk.free_bytes, line.nearly_full, line.answers);
            lines.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(seen(&lines), [(50, true, false), (400, false, true)]);
        // It was warned of, and is not clearly above its mark.
        let lines = after_look(&lines, &[disk("data", 105)], 10);
        let lines = after_look(&lines, &[], 10);
        assert_eq!(seen(&lines), [(105, true, false), (400, false, false)]);
        let lines = after_look(&lines, &[disk("data", 600)], 10);
        assert_eq!(seen(&lines), [(600, false, true), (400, false, false)]);
    }

    proptest! {
        /// Servers that look, are away for hours or days, and die in the middle of a run: every night that came is
        /// looked after by one run, late or not, no night by two, and a run that was cut off is tried once more.
        #[test]
        fn every_night_is_looked_after_once(steps in proptest::collection::vec((1_i64..50, any::<bool>()), 1..60)) {
            let nightly = nightly();
            let (mut row, mut now) = (MaintenanceRow::new(sample::now()), sample::now());
            let (mut ended_last, mut undone_from) = (None, sample::now());
            for (hours_on, dies) in steps {
                now += TimeDelta::hours(hours_on);
                let nights_since = |from: DateTime<Utc>| (now - TimeDelta::hours(3)).date_naive() > (from - TimeDelta::hours(3)).date_naive();
                let (due, last) = (nights_since(row.due_from), row.run.clone());
                let cut_off = last.as_ref().filter(|run| run.ended_at.is_none());
                match next_start(&row, Some(&nightly), now) {
                    Start::Now(Trigger::Resumed) => prop_assert!(cut_off.is_some_and(|run| run.attempt == 1)),
                    Start::Now(trigger) => {
                        prop_assert!(due, "{trigger:?} at {now}, from {}", row.due_from);
                        prop_assert!(cut_off.is_none_or(|run| run.attempt == 2));
                    }
                    Start::At(at) => {
                        prop_assert!(!due && at > now && at - now <= TimeDelta::hours(24), "{at} at {now}");
                        continue;
                    }
                    Start::OnDemand => prop_assert!(false, "there is a timetable"),
                }
                let attempt = cut_off.filter(|run| run.attempt == 1).map_or(1, |run| run.attempt + 1);
                let ended_at = (!dies).then_some(now);
                let before = row.before();
                let run = Run { trigger: Trigger::Timetable, attempt, began_at: now, ended_at, steps: vec![], before };
                row = MaintenanceRow { due_from: now, run: Some(run), ..row };
                // Only a run that came to its end has done anything for good.
                (ended_last, undone_from) = ended_at.map_or((ended_last, undone_from), |at| (Some(at), now));
                prop_assert_eq!((row.ended_at(), row.undone_from()), (ended_last, undone_from));
                let again = next_start(&row, Some(&nightly), now);
                prop_assert_eq!(matches!(again, Start::Now(_)), dies && attempt == 1);
            }
        }

        /// Whatever a clock had said before, the next night is looked after.
        #[test]
        fn no_clock_puts_a_night_off(said in -2_000_i64..2_000, hour in 0_i64..24) {
            let nightly = nightly();
            let mut row = MaintenanceRow::new(hours(said));
            row.timetable = Some(nightly.to_string());
            let begins = (0..=24 * 6).any(|step| {
                let now = hours(hour) + TimeDelta::minutes(10 * step);
                row.go_by(Some(&nightly), now);
                matches!(next_start(&row, Some(&nightly), now), Start::Now(_))
            });
            prop_assert!(begins);
        }

        /// Against a plain model: what is kept for ever stays, what is old goes, and nothing outlives its bot.
        #[test]
        fn retention_keeps_what_is_young_and_lets_nothing_outlive_its_bot(
            recordings in 0_i64..40, events in 0_i64..40, bots in 0_i64..40, age in 0_i64..40,
        ) {
            let kept = |days: i64| (days > 0).then(|| TimeDelta::days(days));
            let retention = Retention {
                recordings: kept(recordings), events: kept(events), bots: kept(bots), logs: None,
            };
            let now = sample::now();
            let ended_at = now - TimeDelta::days(age);
            let verdict = retention.verdict(ended_at, now);
            let is_old = |days: i64| days > 0 && age >= days;
            prop_assert_eq!(verdict.bot, is_old(bots));
            prop_assert_eq!(verdict.recording, is_old(recordings) || is_old(bots));
            prop_assert_eq!(verdict.events, is_old(events) || is_old(bots));
            let looked_at = retention.horizon(now).is_some_and(|horizon| ended_at <= horizon);
            prop_assert_eq!(looked_at, verdict != Verdict::default());
        }
    }
}
