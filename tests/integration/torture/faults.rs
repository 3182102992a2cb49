//! What befalls the servers and their PostgreSQL.

use super::Scene;
use crate::support::server::{Server, signal};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::sleep;

/// How long a leader is frozen at most: longer than a standby waits.
const LEADER_FROZEN_MAX_MS: u32 = 6_000;
const POSTGRESQL_FROZEN_MAX_MS: u32 = 1_500;
/// How long answers are swallowed at most.
const DEAF_MAX_MS: u32 = 1_500;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    LeaderKilled,
    LeaderFrozen { ms: u32 },
    StandbyKilled,
    PostgresqlKilled,
    SessionKilled { which: u32 },
    PostgresqlFrozen { ms: u32 },
    CutAtCommit,
    AnswersSwallowed { ms: u32 },
}

impl Fault {
    /// One of each in eight rounds, in an order that chance decides; how long it takes is chance too.
    pub(super) fn drawn(chance: crate::support::chance::Chance, round: u32) -> Self {
        let ms = |below| chance.drawn(round, 2, below);
        let mut left: Vec<u32> = (0..8).collect();
        for turn in 0..round % 8 {
            left.swap_remove(chance.drawn(round / 8, 10 + turn, u32::try_from(left.len()).unwrap()) as usize);
        }
        let choice = chance.drawn(round / 8, 10 + round % 8, u32::try_from(left.len()).unwrap());
        match left[choice as usize] {
            0 => Self::LeaderKilled,
            1 => Self::LeaderFrozen { ms: ms(LEADER_FROZEN_MAX_MS) },
            2 => Self::StandbyKilled,
            3 => Self::PostgresqlKilled,
            4 => Self::SessionKilled { which: ms(u32::MAX) },
            5 => Self::PostgresqlFrozen { ms: ms(POSTGRESQL_FROZEN_MAX_MS) },
            6 => Self::CutAtCommit,
            _ => Self::AnswersSwallowed { ms: ms(DEAF_MAX_MS) },
        }
    }

    /// It happens, and is over when this comes back.
    pub(super) async fn strike(self, scene: &mut Scene) {
        let lasts = |ms: u32| sleep(Duration::from_millis(ms.into()));
        match self {
            Self::LeaderKilled => scene.leader().await.kill(),
            Self::LeaderFrozen { ms } => {
                let leader = pid(scene.leader().await);
                signal(leader, Signal::STOP);
                lasts(ms).await;
                signal(leader, Signal::CONT);
            }
            Self::StandbyKilled => scene.standby().await.kill(),
            Self::PostgresqlKilled => scene.postgresql.kill(),
            Self::SessionKilled { which } => scene.postgresql.kill_a_session(which),
            Self::PostgresqlFrozen { ms } => {
                let frozen = scene.postgresql.freeze();
                lasts(ms).await;
                drop(frozen);
            }
            Self::CutAtCommit => scene.proxy.cut_at_commit(),
            Self::AnswersSwallowed { ms } => {
                scene.proxy.set_deaf(true);
                lasts(ms).await;
                scene.proxy.set_deaf(false);
            }
        }
    }
}

fn pid(server: &Server) -> i32 {
    i32::try_from(server.pid()).unwrap()
}
