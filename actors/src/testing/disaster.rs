//! The large things that go wrong: a host dies or cannot be reached, the clock is set, the server sleeps, the leader is
//! frozen or cut off and another takes its place.

use super::process::SILENCE_MAX;
use super::scenario;
use super::world::{Happening, World};
use crate::ids::{ContainerKey, HostName};

/// One of them, or what follows from it.
#[derive(Debug, Clone)]
pub enum Disaster {
    /// Something begins; what, is drawn.
    Begins,
    /// The clock is set.
    ClockSet,
    /// A host dies.
    HostDies(HostName),
    /// A host is back.
    HostReturns(HostName),
    /// A standby has waited long enough.
    TakeOver,
    /// A process that was frozen or cut off goes on.
    GoesOn(u32),
    /// A process has asked the store whether it leads.
    Confirms(u32),
}

/// The longest that a clock is set ahead or back at a time; it is never further off than twice that.
const CLOCK_SET_MS_MAX: u64 = 1_800_000;
/// How long a host is away.
const HOST_AWAY_MS: (u64, u64) = (5_000, 900_000);
/// How long a server sleeps that nobody replaces.
const SLEEP_MS: (u64, u64) = (5_000, 900_000);
/// How long a leader is frozen or cut off while a standby is there.
const LOST_MS: (u64, u64) = (1_500, 400_000);

impl World {
    /// Something goes wrong, or is over; `leader` is the process that leads, if one is up. True: a standby takes the
    /// lead now.
    pub fn suffer(&mut self, disaster: Disaster, leader: Option<u32>) -> bool {
        match disaster {
            Disaster::Begins if self.calm => {}
            Disaster::Begins => match (self.rng.u8(0..8), leader) {
                (dies @ 0..3, _) => {
                    let hosts: Vec<HostName> =
                        scenario::hosts(self.platforms.values().sum()).into_keys().collect();
                    let host = hosts[self.rng.usize(0..hosts.len())].clone();
                    self.lose_host(host, dies > 0);
                }
                (3, _) => self.misset_clock(),
                (4, Some(leader)) => self.sleep(leader),
                (_, Some(leader)) => self.lose_lead(leader),
                (_, None) => {}
            },
            Disaster::ClockSet => self.misset_clock(),
            Disaster::HostDies(host) => self.lose_host(host, true),
            Disaster::HostReturns(host) => {
                self.note(format!("host {host} is back"));
                self.hosts_away.remove(&host);
            }
            Disaster::TakeOver => return leader.is_some_and(|leader| self.is_silent(leader)),
            Disaster::GoesOn(number) => {
                self.note(format!("server {number} goes on"));
                self.goes_on(number);
                let after = self.between(1, 1_000);
                self.plan(after, Happening::Disaster(Disaster::Confirms(number)));
            }
            Disaster::Confirms(number) => {
                if self.processes.contains_key(&number) && !self.leads(number) {
                    self.note(format!("server {number} ends: another leads"));
                    self.count("deposed leader ended by its confirmation");
                    self.processes.remove(&number);
                }
            }
        }
        false
    }

    /// A host cannot be reached for a while; where it died, its containers are gone.
    fn lose_host(&mut self, host: HostName, dies: bool) {
        if self.hosts_away.contains_key(&host) {
            return;
        }
        self.count(if dies { "host died" } else { "host cut off" });
        self.note(format!("host {host} {}", if dies { "dies" } else { "is cut off" }));
        self.hosts_away.insert(host.clone(), dies);
        self.listeners.retain(|(of, _)| *of != host);
        self.containers.changed.notify_waiters();
        if dies {
            let lost: Vec<ContainerKey> = self.containers.on(&host);
            for key in lost {
                self.count("container lost with its host");
                self.exit(key, "its host died");
            }
        }
        let after = self.between(HOST_AWAY_MS.0, HOST_AWAY_MS.1);
        self.plan(after, Happening::Disaster(Disaster::HostReturns(host)));
    }

    fn misset_clock(&mut self) {
        let by = self.between(500, CLOCK_SET_MS_MAX);
        let drawn = self.rng.bool();
        // What is due at a time of the clock must still come before the end.
        let ahead = match (self.utc() - self.now).num_milliseconds() {
            off if off.unsigned_abs() < CLOCK_SET_MS_MAX => drawn,
            off => off < 0,
        };
        self.count(if ahead { "clock set ahead" } else { "clock set back" });
        self.note(format!(
            "the clock is set {} {} s",
            if ahead { "ahead" } else { "back" },
            by.num_seconds()
        ));
        self.set_clock(if ahead { by } else { -by });
    }

    /// The whole server does nothing for a while, and nobody takes its place.
    fn sleep(&mut self, leader: u32) {
        let length = self.between(SLEEP_MS.0, SLEEP_MS.1);
        self.count("server slept");
        self.note(format!("server {leader} sleeps for {} s", length.num_seconds()));
        self.down.push((self.utc(), self.utc() + length));
        self.trouble(self.now + length);
        if let Some(process) = self.processes.get_mut(&leader) {
            process.frozen = true;
        }
        self.plan(length, Happening::Disaster(Disaster::GoesOn(leader)));
    }

    /// The leader is frozen, or cut off from the store, and a standby is there.
    fn lose_lead(&mut self, leader: u32) {
        let (freezes, length) = (self.rng.bool(), self.between(LOST_MS.0, LOST_MS.1));
        self.count(if freezes { "leader frozen" } else { "leader cut off" });
        self.note(format!("server {leader} is {}", if freezes { "frozen" } else { "cut off" }));
        self.down.push((self.utc(), self.utc() + length));
        self.trouble(self.now + length);
        let now = self.now;
        if let Some(process) = self.processes.get_mut(&leader) {
            process.frozen |= freezes;
            process.cut_off_at.get_or_insert(now);
        }
        let notices = SILENCE_MAX + self.between(0, 2_000);
        self.plan(notices, Happening::Disaster(Disaster::TakeOver));
        self.plan(length, Happening::Disaster(Disaster::GoesOn(leader)));
    }

    /// Whether the store has not heard of a process for so long that a standby takes the lead.
    fn is_silent(&self, number: u32) -> bool {
        let cut_off_at = self.processes.get(&number).and_then(|process| process.cut_off_at);
        cut_off_at.is_some_and(|at| self.now - at >= SILENCE_MAX)
            && self.tables.away_since(self.now).is_none()
    }
}
