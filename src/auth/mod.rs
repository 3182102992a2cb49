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

/// What a browser's cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user: UserId,
    /// Number of the API key that it was begun with.
    pub key: i64,
    /// It is over then.
    pub until: DateTime<Utc>,
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

    /// What a browser presents until `until`, signed in with the key of this number.
    pub fn session(&self, user: UserId, key: i64, until: DateTime<Utc>) -> String {
        let purpose = ["session", &user.to_string(), &key.to_string()];
        format!("{user}.{key}.{}", self.token(until.timestamp(), &purpose))
    }

    /// The generation that a slot's token is for.
    pub fn check_slot(&self, slot: SlotId, token: &str) -> Result<Generation, TokenError> {
        self.check(token, &["slot", &slot.to_string()]).map(Generation)
    }

    /// The generation that a bot's token is for.
    pub fn check_bot(&self, bot: BotId, token: &str) -> Result<Generation, TokenError> {
        self.check(token, &["bot", &bot.to_string()]).map(Generation)
    }

    /// Whose session it is, by which key and until when. Whether the key still counts is for others to say.
    pub fn check_session(&self, token: &str, now: DateTime<Utc>) -> Result<Session, TokenError> {
        let mut parts = token.splitn(3, '.');
        let mut next = || parts.next().ok_or(TokenError::Malformed);
        let [user, key, rest] = [next()?, next()?, next()?];
        let until = self.check(rest, &["session", user, key])?;
        let number = |text: &str| text.parse::<i64>().map_err(|_| TokenError::Malformed);
        let (user, key) = (UserId(number(user)?), number(key)?);
        let until = DateTime::from_timestamp(until, 0).ok_or(TokenError::Malformed)?;
        if until <= now { Err(TokenError::Expired) } else { Ok(Session { user, key, until }) }
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
        let until = now + TimeDelta::hours(1);
        let token = tokens.session(UserId(3), 7, until);
        assert_eq!(tokens.check_session(&token, now), Ok(Session { user: UserId(3), key: 7, until }));
        assert_eq!(tokens.check_session(&token, until), Err(TokenError::Expired));
        assert_eq!(tokens.check_session(&token, now + TimeDelta::hours(2)), Err(TokenError::Expired));
        assert_eq!(tokens.check_session(&token.replacen('3', "1", 1), now), Err(TokenError::Foreign));
        assert_eq!(tokens.check_session(&token.replacen('7', "8", 1), now), Err(TokenError::Foreign));
        // Of an older server, which named no key.
        let older = format!("3.{}", tokens.token(until.timestamp(), &["session", "3"]));
        assert_eq!(tokens.check_session(&older, now), Err(TokenError::Malformed));
    }
}
