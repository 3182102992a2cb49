//! Tokens and what they may do. Pure.

use std::str::FromStr;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Everything.
    Root,
    /// Look.
    Read,
    /// See values and logs.
    ReadSensitive,
    /// Make, change and delete.
    Write,
    /// Deploy, start and stop.
    Deploy,
}

impl Ability {
    /// As Coolify spells it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Read => "read",
            Self::ReadSensitive => "read:sensitive",
            Self::Write => "write",
            Self::Deploy => "deploy",
        }
    }
}

/// A token of the one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What a client sends, `<id>|<secret>`.
    pub text: String,
    /// What it may do.
    pub abilities: Vec<Ability>,
}

impl Token {
    /// A token that may read, write and deploy: all that a pool of bots needs.
    pub fn for_a_pool(text: &str) -> Self {
        Self { text: text.to_owned(), abilities: vec![Ability::Read, Ability::Write, Ability::Deploy] }
    }

    pub(super) fn may(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability) || self.abilities.contains(&Ability::Root)
    }
}

impl FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::for_a_pool(text))
    }
}
