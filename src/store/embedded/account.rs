//! Whom PostgreSQL runs as: it refuses to be root.

use super::EmbeddedError;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// This process's own, unless that is root: then whoever owns `folder` already, else `postgres`, else `nobody`.
    pub(super) fn choose(folder: &Path) -> Result<Self, EmbeddedError> {
        let own = Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        if own.uid != 0 {
            return Ok(own);
        }
        if let Ok(metadata) = folder.metadata()
            && metadata.uid() != 0
        {
            return Ok(Self { uid: metadata.uid(), gid: metadata.gid() });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"].iter().find_map(|name| lookup(&passwd, name)).ok_or(EmbeddedError::NoAccount)
    }

    /// Whether commands must be told to run as this user.
    pub(super) fn is_other(self) -> bool {
        self.uid != rustix::process::geteuid().as_raw()
    }

    /// Sees that this user can reach `folder`: opens its parent, which is ours, and names what else is in the way.
    pub(super) fn open_way_to(self, folder: &Path) -> Result<(), EmbeddedError> {
        let Some(parent) = folder.parent().filter(|_| self.is_other()) else { return Ok(()) };
        for ancestor in parent.ancestors() {
            let prepare = |source| EmbeddedError::Prepare { folder: ancestor.to_owned(), source };
            let metadata = ancestor.metadata().map_err(prepare)?;
            if self.may_enter(&metadata) {
                continue;
            }
            if ancestor != parent {
                return Err(EmbeddedError::NotEnterable { folder: ancestor.to_owned(), uid: self.uid });
            }
            let mode = metadata.permissions().mode() | 0o011;
            std::fs::set_permissions(ancestor, std::fs::Permissions::from_mode(mode)).map_err(prepare)?;
        }
        Ok(())
    }

    fn may_enter(self, metadata: &std::fs::Metadata) -> bool {
        let needed = if metadata.uid() == self.uid {
            0o100
        } else if metadata.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        metadata.permissions().mode() & needed != 0
    }

    /// Makes a folder that only this user can enter; one that is there must be this user's own.
    pub(super) fn make_private(self, folder: &Path) -> Result<(), EmbeddedError> {
        let prepare = |source| EmbeddedError::Prepare { folder: folder.to_owned(), source };
        match std::fs::create_dir(folder) {
            Ok(()) => {
                if self.is_other() {
                    std::os::unix::fs::chown(folder, Some(self.uid), Some(self.gid)).map_err(prepare)?;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Not followed: in a shared folder somebody else may have put a link there.
                let metadata = folder.symlink_metadata().map_err(prepare)?;
                if !metadata.is_dir() || metadata.uid() != self.uid {
                    return Err(EmbeddedError::NotOurs { folder: folder.to_owned(), uid: self.uid });
                }
            }
            Err(error) => return Err(prepare(error)),
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(prepare)
    }
}

fn lookup(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/sh\n";
        assert_eq!(lookup(passwd, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(lookup(passwd, "post"), None);
    }
}
