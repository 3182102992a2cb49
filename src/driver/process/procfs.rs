//! What `/proc` says of processes: who they are, which session they belong to, whose marker they carry.
//!
//! Zombies count as gone everywhere here. Reads are synchronous and bounded; callers run them on a blocking thread.

use meeboter_actors::ids::{ContainerKey, Generation, SlotId};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::str::FromStr;
use uuid::Uuid;

/// Environment variable that says whose a process is.
pub(super) const MARKER_VARIABLE: &str = "MEEBOTER_MARKER";
/// The kernel keeps a process's environment below this, but for absurd ones.
const ENVIRON_BYTES_MAX: u64 = 1024 * 1024;
/// Where the fields of `/proc/<pid>/stat` that follow the name are, counted from the state.
const STAT_SESSION: usize = 3;
const STAT_START_TIME: usize = 19;

/// A process, distinguished from every other of this boot: numbers are used again, start times (in clock ticks) tell
/// them apart. Orders by age, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Identity {
    pub(super) start_time: u64,
    pub(super) pid: i32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.start_time)
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start_time) = text.split_once(':').ok_or(())?;
        let pid = pid.parse().map_err(|_| ())?;
        let start_time = start_time.parse().map_err(|_| ())?;
        Ok(Self { start_time, pid })
    }
}

/// Whose a process is: `<installation>/<slot>/<generation>`, inherited by everything a bot starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) installation: Uuid,
    pub(super) key: ContainerKey,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.installation, self.key.slot, self.key.generation)
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().ok_or(());
        let installation = next()?.parse().map_err(|_| ())?;
        let slot = SlotId(next()?.parse().map_err(|_| ())?);
        let generation = Generation(next()?.parse().map_err(|_| ())?);
        Ok(Self { installation, key: ContainerKey { slot, generation } })
    }
}

/// A process that is not a zombie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) identity: Identity,
    /// `None` where it cannot be told apart from others: a kernel thread's, and one whose leader is outside of this
    /// PID namespace (`docker run --init`, `unshare --pid`) both read as 0.
    pub(super) session: Option<i32>,
    pub(super) marker: Option<Marker>,
}

impl Process {
    pub(super) fn leads_session(&self) -> bool {
        self.session == Some(self.identity.pid)
    }
}

/// All processes that this one may see, or an error.
pub(super) fn scan() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(process) = look(pid)?
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// The process of this number, if there is one.
pub(super) fn look(pid: i32) -> io::Result<Option<Process>> {
    let Some(stat) = stat(pid)? else { return Ok(None) };
    if stat.is_gone {
        return Ok(None);
    }
    Ok(Some(Process { identity: stat.identity, session: stat.session, marker: marker(pid)? }))
}

/// This process itself: what must not be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) pid: i32,
    pub(super) session: Option<i32>,
}

/// See [`Own`].
pub(super) fn own() -> io::Result<Own> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    Ok(Own { pid, session: stat(pid)?.and_then(|stat| stat.session) })
}

/// Whether this very process, and not a later one of its number, still runs.
pub(super) fn is_running(identity: Identity) -> io::Result<bool> {
    Ok(stat(identity.pid)?.is_some_and(|stat| !stat.is_gone && stat.identity == identity))
}

/// The identity of a child that was not waited for yet, even where it has ended.
pub(super) fn identity_of_child(pid: i32) -> io::Result<Identity> {
    stat(pid)?.map(|stat| stat.identity).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Tells this boot of the machine from others: process numbers and start times begin anew with each.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

struct Stat {
    identity: Identity,
    session: Option<i32>,
    is_gone: bool,
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => match parse_stat(pid, &String::from_utf8_lossy(&bytes)) {
            Some(stat) => Ok(Some(stat)),
            None => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is unreadable")))
            }
        },
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name may hold anything, spaces and parentheses too; the fields begin after the last `)`.
fn parse_stat(pid: i32, text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let session = Some(fields.get(STAT_SESSION)?.parse().ok()?).filter(|session| *session != 0);
    let start_time = fields.get(STAT_START_TIME)?.parse().ok()?;
    Some(Stat { identity: Identity { start_time, pid }, session, is_gone: matches!(state, "Z" | "X" | "x") })
}

/// The marker, where the environment may be read: that of another user's process may not, and is none of ours.
fn marker(pid: i32) -> io::Result<Option<Marker>> {
    let mut environ = Vec::new();
    let read = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ));
    match read {
        Ok(_) => Ok(marker_in(&environ)),
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn marker_in(environ: &[u8]) -> Option<Marker> {
    environ.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARKER_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    })
}

/// A process that ends between two reads shows itself in either way.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "17 (a) b (c)) S 1 17 16 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(17, text).expect("well-formed");
        assert_eq!((stat.identity.start_time, stat.session, stat.is_gone), (4711, Some(16), false));
        assert!(parse_stat(17, "17 (x) Z 1").is_none());
    }

    #[test]
    fn a_session_led_from_outside_of_the_namespace_is_none() {
        let text = "1 (server) S 0 0 0 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(1, text).expect("well-formed").session, None);
    }

    #[test]
    fn a_marker_is_found_among_other_variables_and_reads_back() {
        let key = ContainerKey { slot: SlotId(Uuid::from_u128(5)), generation: Generation(3) };
        let marker = Marker { installation: Uuid::from_u128(9), key };
        let environ = format!("PATH=/bin\0X{MARKER_VARIABLE}=no\0{MARKER_VARIABLE}={marker}\0HOME=/\0");
        assert_eq!(marker_in(environ.as_bytes()), Some(marker));
        assert_eq!(marker_in(b"MEEBOTER_MARKER=rubbish\0"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_own_identity() {
        let pid = i32::try_from(std::process::id()).expect("small");
        let process = look(pid).expect("readable").expect("runs");
        assert!(is_running(process.identity).expect("readable"));
        let other = Identity { start_time: process.identity.start_time + 1, pid };
        assert!(!is_running(other).expect("readable"));
        assert_eq!(process.identity.to_string().parse(), Ok(process.identity));
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let identity =
            identity_of_child(i32::try_from(child.id()).expect("small")).expect("not collected yet");
        while is_running(identity).expect("readable") {
            std::thread::yield_now();
        }
        assert_eq!(look(identity.pid).expect("readable"), None);
        child.wait().expect("collected");
    }
}
