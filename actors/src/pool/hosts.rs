//! The hosts' engines as the pool sees them: what is heard of each goes to its breaker, and what the breaker wants is
//! done here.

use super::actor::PoolSupervisor;
use super::breaker::{Breaker, BreakerAction, BreakerEvent};
use super::message::EngineHeard;
use crate::backoff::spread;
use crate::ids::HostName;
use crate::ports::{Machine, Measure, SLEEP_MAX};
use crate::slot::event::SlotEvent;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The hosts whose engines are away. Written by the pool; slots look before they recover.
#[derive(Debug, Default)]
pub struct AwayHosts(RwLock<BTreeSet<HostName>>);

impl AwayHosts {
    /// Whether the host's engine is away.
    pub fn contains(&self, host: &HostName) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn set(&self, host: &HostName, is_away: bool) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if is_away {
            hosts.insert(host.clone())
        } else {
            hosts.remove(host)
        };
    }
}

impl PoolSupervisor {
    fn heard(&mut self, host: &HostName, event: BreakerEvent, ctx: &mut Context<Self>) {
        let (now, settings) = (self.now(), self.settings.breaker);
        if !self.breakers.contains_key(host) {
            self.breakers.insert(host.clone(), Breaker::default());
        }
        let Some(breaker) = self.breakers.get_mut(host) else { return };
        let jitter = spread(host.0.bytes(), breaker.tries());
        let from = breaker.state().as_str();
        let Some(action) = breaker.take(event, &settings, jitter, now) else { return };
        let (state, event) = (breaker.state(), event.name());
        self.links.meter.record(Measure::Moved {
            machine: Machine::Breaker,
            from,
            event,
            to: state.as_str(),
        });
        self.index.set_engine(host, state);
        match action {
            BreakerAction::Open(at) => {
                slog::error!(self.links.log, "an engine does not answer; its host is left alone until it does";
                    "host" => %host, "asked_again_at" => %at);
                self.turned(host, true);
                self.wake_breaker(host.clone(), at, ctx);
            }
            BreakerAction::WaitUntil(at) => self.wake_breaker(host.clone(), at, ctx),
            BreakerAction::Probe => self.probe(host.clone(), ctx),
            BreakerAction::Close => {
                slog::info!(self.links.log, "an engine answers again"; "host" => %host);
                self.turned(host, false);
                self.resume(host, ctx);
            }
        }
    }

    fn turned(&self, host: &HostName, open: bool) {
        self.links.away.set(host, open);
        self.links.meter.record(Measure::BreakerTurned { host, open });
    }

    fn wake_breaker(&self, host: HostName, at: DateTime<Utc>, ctx: &mut Context<Self>) {
        let wait = (at - self.now()).to_std().unwrap_or(Duration::ZERO).min(SLEEP_MAX);
        ctx.run_later(wait, move |act, ctx| act.heard(&host, BreakerEvent::Woke, ctx));
    }

    /// Asks for what there is. The outcome comes as whatever is heard of the engine does.
    fn probe(&self, host: HostName, ctx: &mut Context<Self>) {
        let driver = Arc::clone(&self.links.driver);
        ctx.spawn(async move { drop(driver.list(&host).await) }.into_actor(self));
    }

    /// The host is as any other again: what paused goes on, and those who wait are served.
    fn resume(&mut self, host: &HostName, ctx: &mut Context<Self>) {
        let lines = self.index.lines();
        let members =
            lines.iter().filter(|line| line.host == *host).filter_map(|line| self.members.get(&line.name));
        let handles: Vec<_> = members.map(|member| Arc::clone(&member.handle)).collect();
        for handle in &handles {
            drop(handle.send(SlotEvent::Woke));
        }
        self.pump_all(ctx);
        for handle in &handles {
            self.prepare_ahead(&handle.snapshot());
        }
    }
}

impl Handler<EngineHeard> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: EngineHeard, ctx: &mut Self::Context) {
        self.heard(&message.host, message.heard, ctx);
    }
}
