//! What may be asked of a bot that waits: kept while the bot is between two places, applied when it waits again.

use super::message::{Reprioritise, ReprioritiseError, Withdraw, WithdrawError};
use std::mem::discriminant;

/// What was asked of a bot; applied while it waits.
pub(super) enum Wish {
    Withdraw(Withdraw),
    Reprioritise(Reprioritise),
}

impl Wish {
    /// The bot does not wait.
    pub(super) fn refuse(self) {
        match self {
            Self::Withdraw(wish) => drop(wish.reply.send(Err(WithdrawError::NotLive))),
            Self::Reprioritise(wish) => drop(wish.reply.send(Err(ReprioritiseError::NotWaiting))),
        }
    }

    /// Whether an older wish need not be kept beside this one: it is of the same kind, and who had it has given up. So
    /// there are never many more wishes than there are people who wait for an answer.
    pub(super) fn supersedes(&self, older: &Self) -> bool {
        let given_up = match older {
            Self::Withdraw(wish) => wish.reply.is_closed(),
            Self::Reprioritise(wish) => wish.reply.is_closed(),
        };
        given_up && discriminant(self) == discriminant(older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::EndReason;
    use crate::ids::BotId;
    use tokio::sync::oneshot;

    #[test]
    fn only_what_nobody_waits_for_is_superseded_and_only_by_its_kind() {
        let (reply, answer) = oneshot::channel();
        let (bot_id, reason) = (BotId(1), EndReason::LeftByRequest);
        let withdraw = Wish::Withdraw(Withdraw { bot_id, reason, reply });
        let again = Wish::Withdraw(Withdraw { bot_id, reason, reply: oneshot::channel().0 });
        let other = oneshot::channel().0;
        let other = Wish::Reprioritise(Reprioritise { bot_id, priority: 1, reply: other });
        assert!(!again.supersedes(&withdraw), "somebody waits for it");
        drop(answer);
        assert!(again.supersedes(&withdraw) && !other.supersedes(&withdraw));
    }
}
