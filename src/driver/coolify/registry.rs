//! What is known of this installation's applications: what Coolify lists, and what this server did since. Pure.

use super::api::ApplicationRow;
use super::description::{Shown, key_of, tells_of_a_bot};
use super::status::{Deed, Reading, read};
use meeboter_actors::ids::{ContainerKey, SlotId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What the names of applications for one bot each begin with.
pub(super) const BOT_PREFIX: &str = "meeboter-bot-";
/// What the names of slots begin with.
const SLOT_PREFIX: &str = "pool-";

/// The newest deployment of an application from before anything is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Newest {
    /// Nobody has looked.
    Unknown,
    /// There was none.
    None,
    /// That one.
    Deployment(String),
}

/// An application of this installation.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) uuid: String,
    pub(super) name: String,
    /// The container that it last was, or is about to be.
    pub(super) key: Option<ContainerKey>,
    /// Name and tag.
    pub(super) image: String,
    pub(super) deed: Deed,
    pub(super) newest: Newest,
    /// The status of the last listing, and when that began.
    pub(super) reading: (Reading, Instant),
    /// Restarts that Coolify counted before the present container.
    pub(super) restarts_before: u64,
    /// Restarts that it has counted by now.
    pub(super) restarts: u64,
    /// When Coolify last wrote its row, in Coolify's words.
    pub(super) updated_at: String,
    /// A description that is still to be written.
    pub(super) notice: Option<Shown>,
    /// Its environment holds nothing from before this server's start that is not wanted any more.
    pub(super) is_tidied: bool,
    created_at: String,
    /// Since when it is as it is here; a listing that began before is older than that.
    changed: Instant,
}

impl Known {
    /// Notes what this server did to it.
    pub(super) fn did(&mut self, deed: Deed, now: Instant) {
        self.deed = deed;
        self.changed = now;
        if matches!(deed, Deed::Stopped(_)) {
            // A stop sets Coolify's count back.
            (self.restarts, self.restarts_before) = (0, 0);
        }
    }

    /// Notes that it is to become a container of another image.
    pub(super) fn becomes(&mut self, key: Option<ContainerKey>, image: &str, now: Instant) {
        self.key = key;
        self.image = image.to_owned();
        self.notice = None;
        self.restarts_before = self.restarts;
        self.did(Deed::Deploying, now);
    }

    /// Whether it is there for one bot alone, and is deleted with it.
    pub(super) fn is_for_one_bot(&self) -> bool {
        self.name.starts_with(BOT_PREFIX)
    }

    /// Whether its name is one that is given here; that of a clone is another.
    fn has_given_name(&self) -> bool {
        self.is_for_one_bot() || self.name.starts_with(SLOT_PREFIX)
    }

    /// Whether its one bot is known gone, and it is still there.
    pub(super) fn is_left_over(&self) -> bool {
        self.is_for_one_bot() && matches!(self.deed, Deed::Stopped(_))
    }

    /// Whether its program ended and Docker started another in its place.
    pub(super) fn was_restarted(&self) -> bool {
        self.restarts > self.restarts_before
    }

    fn read(row: &ApplicationRow, began: Instant) -> Self {
        let deed = Deed::Inherited { with_bot: tells_of_a_bot(&row.description) };
        Self {
            uuid: row.uuid.clone(),
            name: row.name.clone(),
            key: key_of(&row.description),
            image: image_of(row),
            deed,
            newest: Newest::Unknown,
            reading: (read(&row.status), began),
            restarts_before: 0,
            restarts: row.restart_count,
            updated_at: row.updated_at.clone(),
            notice: None,
            is_tidied: false,
            created_at: row.created_at.clone(),
            changed: began,
        }
    }
}

fn image_of(row: &ApplicationRow) -> String {
    let (name, tag) = (&row.docker_registry_image_name, &row.docker_registry_image_tag);
    if tag.is_empty() { name.clone() } else { format!("{name}:{tag}") }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Registry {
    applications: BTreeMap<String, Known>,
}

impl Registry {
    /// Takes over a listing of all applications that began at a time. What was made since may be missing in it. What holds
    /// a container and is missing all the same is kept and returned: it has to be asked for by itself.
    pub(super) fn refresh(&mut self, rows: &[ApplicationRow], began: Instant) -> Vec<String> {
        let listed: BTreeSet<&str> = rows.iter().map(|row| row.uuid.as_str()).collect();
        let is_missing = |known: &Known| !listed.contains(known.uuid.as_str()) && known.changed <= began;
        self.applications.retain(|_, known| !is_missing(known) || known.key.is_some());
        for row in rows {
            self.take(row, began);
        }
        self.all().filter(|known| is_missing(known)).map(|known| known.uuid.clone()).collect()
    }

    /// Takes over a row that was asked for at a time.
    pub(super) fn take(&mut self, row: &ApplicationRow, began: Instant) {
        let fresh = Known::read(row, began);
        match self.applications.get_mut(&row.uuid) {
            None => drop(self.applications.insert(row.uuid.clone(), fresh)),
            Some(known) if known.changed > began => {}
            // Nothing was done to it here: another server may have written its description.
            Some(known) if matches!(known.deed, Deed::Inherited { .. }) => {
                let (newest, notice) = (known.newest.clone(), known.notice.take());
                *known = Known { newest, notice, is_tidied: known.is_tidied, ..fresh };
            }
            Some(known) => {
                known.reading = fresh.reading;
                known.restarts = fresh.restarts;
                known.updated_at = fresh.updated_at;
                known.created_at = fresh.created_at;
            }
        }
    }

    /// Notes an application that was just made.
    pub(super) fn add(&mut self, uuid: &str, name: &str, now: Instant) {
        self.applications.insert(
            uuid.to_owned(),
            Known {
                uuid: uuid.to_owned(),
                name: name.to_owned(),
                key: None,
                image: String::new(),
                deed: Deed::Inherited { with_bot: false },
                newest: Newest::None,
                reading: (Reading::Exited, now),
                restarts_before: 0,
                restarts: 0,
                updated_at: String::new(),
                notice: None,
                is_tidied: true,
                created_at: String::new(),
                changed: now,
            },
        );
    }

    pub(super) fn remove(&mut self, uuid: &str) {
        self.applications.remove(uuid);
    }

    pub(super) fn get(&self, uuid: &str) -> Option<&Known> {
        self.applications.get(uuid)
    }

    pub(super) fn get_mut(&mut self, uuid: &str) -> Option<&mut Known> {
        self.applications.get_mut(uuid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Known> {
        self.applications.values()
    }

    /// The application of a name; names are not unique in Coolify, and the oldest is the one that counts.
    pub(super) fn by_name(&self, name: &str) -> Option<&Known> {
        let named = self.all().filter(|known| known.name == name);
        named.min_by_key(|known| (known.created_at.clone(), known.uuid.clone()))
    }

    /// The applications that hold, or held, a container. Somebody may have pressed "Clone", or a creation may have been
    /// carried out after it was given up: what this server brought up comes first, then what has a name that it gives.
    pub(super) fn by_key(&self, key: ContainerKey) -> Vec<Known> {
        let mut holders: Vec<_> = self.all().filter(|known| known.key == Some(key)).cloned().collect();
        holders.sort_by_key(|known| (!matches!(known.deed, Deed::Running(_)), !known.has_given_name()));
        holders
    }

    /// Whether an application of a slot is left.
    pub(super) fn has_slot(&self, slot: SlotId) -> bool {
        self.all().any(|known| known.key.is_some_and(|key| key.slot == slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(uuid: &str, name: &str, description: &str) -> ApplicationRow {
        ApplicationRow {
            uuid: uuid.into(),
            name: name.into(),
            description: description.into(),
            status: "running:unknown".into(),
            docker_registry_image_name: "ghcr.io/x/bot".into(),
            docker_registry_image_tag: "v1".into(),
            restart_count: 0,
            created_at: format!("2026-01-01T00:00:0{}Z", uuid.len()),
            updated_at: String::new(),
        }
    }

    #[test]
    fn of_two_with_one_name_the_older_counts() {
        let mut registry = Registry::default();
        registry.refresh(&[row("bbb", "pool-zoom-001", ""), row("cc", "pool-zoom-001", "")], Instant::now());
        assert_eq!(registry.by_name("pool-zoom-001").map(|known| known.uuid.as_str()), Some("cc"));
    }

    #[test]
    fn of_twins_with_one_key_none_is_missed() {
        let key = "00000000-0000-0000-0000-000000000007/4";
        let busy = |uuid: &str, name: &str| row(uuid, name, &format!("[BUSY] Bot #1 - now · {key}"));
        let mut registry = Registry::default();
        let (clone, slot) = (busy("aa", "clone-of-pool-zoom-001"), "pool-zoom-001");
        registry.refresh(&[clone, busy("b", slot), busy("c", slot)], Instant::now());
        let key = registry.get("b").and_then(|known| known.key).expect("a key");
        let holders = |registry: &Registry| {
            registry.by_key(key).into_iter().map(|known| known.uuid).collect::<Vec<_>>()
        };
        assert_eq!(holders(&registry), ["b", "c", "aa"]);
        let now = Instant::now();
        registry.get_mut("c").expect("known").did(Deed::Running(now), now);
        assert_eq!(holders(&registry), ["c", "b", "aa"]);
    }

    #[test]
    fn what_was_made_during_a_listing_is_not_missed() {
        let mut registry = Registry::default();
        let began = Instant::now();
        registry.add("new", "pool-zoom-001", began + Duration::from_millis(1));
        registry.refresh(&[], began);
        assert!(registry.get("new").is_some());
        registry.refresh(&[], began + Duration::from_millis(2));
        assert!(registry.get("new").is_none(), "by now it is deleted");
    }

    #[test]
    fn what_holds_a_container_is_asked_for_where_a_listing_lacks_it() {
        let mut registry = Registry::default();
        let began = Instant::now();
        let busy = row("a", "pool-zoom-001", "[BUSY] Bot #1 - now · 00000000-0000-0000-0000-000000000007/4");
        let all = [busy, row("b", "pool-zoom-002", "")];
        assert_eq!(registry.refresh(&all, began), [""; 0]);
        let later = began + Duration::from_secs(1);
        assert_eq!(registry.refresh(&[], later), ["a"]);
        assert_eq!((registry.get("a").is_some(), registry.get("b").is_some()), (true, false));
        registry.get_mut("a").expect("known").did(Deed::Deploying, later + Duration::from_secs(1));
        assert_eq!(registry.refresh(&[], later), [""; 0], "it is younger than the listing");
    }

    #[test]
    fn a_listing_from_before_a_change_does_not_undo_it() {
        let mut registry = Registry::default();
        let began = Instant::now();
        registry.refresh(&[row("a", "pool-zoom-001", "")], began);
        let known = registry.get_mut("a").expect("known");
        known.restarts = 3;
        known.did(Deed::Stopped(began + Duration::from_secs(2)), began + Duration::from_secs(2));
        let old = ApplicationRow { restart_count: 3, ..row("a", "pool-zoom-001", "") };
        registry.refresh(std::slice::from_ref(&old), began + Duration::from_secs(1));
        assert!(!registry.get("a").expect("known").was_restarted());
        registry.refresh(&[old], began + Duration::from_secs(3));
        assert!(registry.get("a").expect("known").was_restarted());
    }

    #[test]
    fn a_server_that_starts_anew_finds_its_containers() {
        let slot = "00000000-0000-0000-0000-000000000007";
        let mut registry = Registry::default();
        let busy = row("a", "pool-zoom-001", &format!("[BUSY] Bot #1 - now · {slot}/4"));
        registry.refresh(&[busy, row("b", "pool-zoom-002", "")], Instant::now());
        let known = registry.get("a").expect("known").clone();
        assert_eq!(known.deed, Deed::Inherited { with_bot: true });
        assert_eq!(known.image, "ghcr.io/x/bot:v1");
        let holders = registry.by_key(known.key.expect("a key"));
        assert_eq!(holders.iter().map(|known| known.uuid.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(registry.get("b").and_then(|known| known.key), None);
    }
}
