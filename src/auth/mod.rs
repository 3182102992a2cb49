//! Who is asking: API keys of users, session cookies of browsers, tokens of slots and bots.
//!
//! Slot, bot and cookie tokens are an HMAC-SHA256 of what they stand for under the installation's secret, so none of
//! them is stored, and a rebuilt server gives the same one again. API keys are stored as their SHA-256.

pub mod api_keys;
pub mod plans;

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use meeboter_actors::ids::{BotId, Generation, SlotId, UserId};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token at all.
    #[error("this is not a token")]
    Malformed,
    /// It was not made for this by this installation.
    #[error("the token belongs to something else")]
    Foreign,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// Makes and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    secret: Vec<u8>,
}

impl Tokens {
    /// Tokens under a secret of the installation.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self { secret: secret.into() }
    }

    /// What a slot's container of this generation presents.
    pub fn slot(&self, slot: SlotId, generation: Generation) -> String {
        self.token(generation.0, &["slot", &slot.to_string()])
    }

    /// What the bot of this generation presents once it has claimed it.
    pub fn bot(&self, bot: BotId, generation: Generation) -> String {
        self.token(generation.0, &["bot", &bot.to_string()])
    }

    /// What a browser presents until `until`.
    pub fn session(&self, user: UserId, until: DateTime<Utc>) -> String {
        format!("{user}.{}", self.token(until.timestamp(), &["session", &user.to_string()]))
    }

    /// The generation that a slot's token is for.
    pub fn check_slot(&self, slot: SlotId, token: &str) -> Result<Generation, TokenError> {
        self.check(token, &["slot", &slot.to_string()]).map(Generation)
    }

    /// The generation that a bot's token is for.
    pub fn check_bot(&self, bot: BotId, token: &str) -> Result<Generation, TokenError> {
        self.check(token, &["bot", &bot.to_string()]).map(Generation)
    }

    /// Whose session it is.
    pub fn check_session(&self, token: &str, now: DateTime<Utc>) -> Result<UserId, TokenError> {
        let (user, rest) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let user: i64 = user.parse().map_err(|_| TokenError::Malformed)?;
        let until = self.check(rest, &["session", &user.to_string()])?;
        if until <= now.timestamp() { Err(TokenError::Expired) } else { Ok(UserId(user)) }
    }

    /// `<number>.<mac of purpose and number, in hex>`
    fn token(&self, number: i64, purpose: &[&str]) -> String {
        let mac = self.mac(number, purpose).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{number}.{hex}")
    }

    fn check(&self, token: &str, purpose: &[&str]) -> Result<i64, TokenError> {
        let (number, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let number: i64 = number.parse().map_err(|_| TokenError::Malformed)?;
        let expected = self.token(number, purpose);
        if bool::from(expected.as_bytes().ct_eq(token.as_bytes())) {
            Ok(number)
        } else {
            Err(TokenError::Foreign)
        }
    }

    fn mac(&self, number: i64, purpose: &[&str]) -> Hmac<Sha256> {
        // HMAC takes keys of any length; new_from_slice cannot fail for it.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        for part in purpose {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(&number.to_be_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use uuid::Uuid;

    #[test]
    fn a_token_is_for_one_thing_and_one_generation() {
        let tokens = Tokens::new(b"secret".as_slice());
        let slot = SlotId(Uuid::from_u128(1));
        let token = tokens.slot(slot, Generation(4));
        assert_eq!(tokens.check_slot(slot, &token), Ok(Generation(4)));
        assert_eq!(tokens.check_slot(SlotId(Uuid::from_u128(2)), &token), Err(TokenError::Foreign));
        assert_eq!(tokens.check_slot(slot, &token.replacen('4', "5", 1)), Err(TokenError::Foreign));
        assert_eq!(Tokens::new(b"other".as_slice()).check_slot(slot, &token), Err(TokenError::Foreign));
        assert_eq!(tokens.check_slot(slot, "nonsense"), Err(TokenError::Malformed));
        let bot = tokens.bot(BotId(7), Generation(1));
        assert_eq!(tokens.check_bot(BotId(8), &bot), Err(TokenError::Foreign));
    }

    #[test]
    fn a_session_ends() {
        let tokens = Tokens::new(b"secret".as_slice());
        let now = DateTime::UNIX_EPOCH;
        let token = tokens.session(UserId(3), now + TimeDelta::hours(1));
        assert_eq!(tokens.check_session(&token, now), Ok(UserId(3)));
        assert_eq!(tokens.check_session(&token, now + TimeDelta::hours(2)), Err(TokenError::Expired));
        assert_eq!(tokens.check_session(&token.replacen('3', "1", 1), now), Err(TokenError::Foreign));
    }
}
