//! A process held by a pidfd: signals and waits reach this process and never a later one of its number.

use super::procfs::{Identity, is_running};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A kernel that forgot to wake us costs this much.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Held {
    identity: Identity,
    fd: OwnedFd,
}

impl Held {
    /// Takes hold of a process; `None` where it is gone. The identity is checked behind the open, so that the handle
    /// belongs to the process that was meant.
    pub(super) fn take(identity: Identity) -> io::Result<Option<Self>> {
        let pid = Pid::from_raw(identity.pid).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) if is_running(identity)? => Ok(Some(Self { identity, fd })),
            Ok(_) | Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal; one that is gone needs none.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Comes back when the process has ended, whether or not anyone has collected it.
    pub(super) async fn gone(self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "the replacement is an unsafe fn; an OwnedFd that is never taken out is sound"
        )]
        let fd = AsyncFd::with_interest(self.fd, Interest::READABLE)?;
        while is_running(self.identity)? {
            if let Ok(ready) = tokio::time::timeout(LOOK_INTERVAL, fd.readable()).await {
                // Readable means ended; where /proc disagrees for a moment, wait for the next word.
                ready?.clear_ready();
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
