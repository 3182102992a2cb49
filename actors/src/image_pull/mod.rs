//! Images on hosts: pulled once, waited for by all who want them. The rules are in [`machine`].

pub mod actor;
pub mod anew;
pub mod machine;
#[cfg(test)]
mod machine_test;

use crate::ids::HostName;

/// What pulls are serialised by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullKey {
    /// The host.
    pub host: HostName,
    /// The image's reference.
    pub image: String,
}
