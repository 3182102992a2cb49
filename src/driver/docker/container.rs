//! What a bot's container is to its engine: its name, its labels, and what it is made with; and what a listing says of
//! it. Pure: no I/O.
//!
//! The name holds the slot's uuid and the generation, so that the engine itself refuses a second container of a
//! generation, and so that whatever is stopped by it can be no other one. The labels say whose it is: those of another
//! installation on the same engine are never looked at.

use bollard::models::{
    ContainerCreateBody, ContainerSummary, HostConfig, HostConfigLogConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use meeboter_actors::ids::{ContainerId, ContainerKey, Generation, SlotId, SlotName};
use meeboter_actors::ports::{ListedContainer, Presence, ResourceLimits};
use meeboter_bot::{ENV_SERVER, ENV_SLOT, ENV_TOKEN, ENV_WHEN_DONE, ENV_WORK_DIR};
use std::collections::HashMap;
use uuid::Uuid;

/// Whose containers they are.
pub(super) const LABEL_INSTALLATION: &str = "meeboter.installation";
/// The slot's uuid.
const LABEL_SLOT: &str = "meeboter.slot";
/// The slot's generation.
const LABEL_GENERATION: &str = "meeboter.generation";
/// The slot's name, for people: `docker ps --filter label=meeboter.slot-name=pool-zoom-001`.
const LABEL_SLOT_NAME: &str = "meeboter.slot-name";
/// Where a bot works inside its container: every image has a /tmp that its user can write to, or a root who can make it.
pub(super) const WORK_DIR: &str = "/tmp/meeboter";
/// Bytes in a MiB.
const MIB: i64 = 1024 * 1024;
/// Of a processor, in the engine's unit, for a thousandth.
const NANO_CPUS_A_MILLI: i64 = 1_000_000;
/// Files that a container's log is kept in; the oldest goes first.
const LOG_FILES: u32 = 2;

/// The name of a generation's container.
pub(super) fn name(key: ContainerKey) -> String {
    format!("meeboter-{}-{}", key.slot, key.generation)
}

/// What every container of an installation is made with.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) installation: Uuid,
    pub(super) server_url: String,
    pub(super) network: Option<String>,
    pub(super) log_max_mib: u32,
}

/// What one container is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) key: ContainerKey,
    pub(super) slot_name: &'a SlotName,
    pub(super) image: &'a str,
    pub(super) limits: ResourceLimits,
    pub(super) token: &'a str,
}

impl Recipe {
    /// The request that makes a container.
    pub(super) fn body(&self, wanted: Wanted<'_>) -> ContainerCreateBody {
        let Wanted { key, slot_name, image, limits, token } = wanted;
        let environment = [
            (ENV_SLOT, key.slot.to_string()),
            (ENV_SERVER, self.server_url.clone()),
            (ENV_TOKEN, token.to_owned()),
            (ENV_WORK_DIR, WORK_DIR.to_owned()),
            // Its exit is the first sign of its end, and nothing starts it again.
            (ENV_WHEN_DONE, "exit".to_owned()),
        ];
        let labels = [
            (LABEL_INSTALLATION, self.installation.to_string()),
            (LABEL_SLOT, key.slot.to_string()),
            (LABEL_GENERATION, key.generation.to_string()),
            (LABEL_SLOT_NAME, slot_name.to_string()),
        ];
        ContainerCreateBody {
            image: Some(image.to_owned()),
            env: Some(environment.map(|(name, value)| format!("{name}={value}")).into()),
            labels: Some(labels.map(|(label, value)| (label.to_owned(), value)).into()),
            host_config: Some(self.host_config(limits)),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(&self, limits: ResourceLimits) -> HostConfig {
        let memory = limits.memory_mib.map(|mib| i64::from(mib) * MIB);
        let kib_a_file = (u64::from(self.log_max_mib) * 1024 / u64::from(LOG_FILES)).max(1);
        let log = [("max-size", format!("{kib_a_file}k")), ("max-file", LOG_FILES.to_string())];
        HostConfig {
            nano_cpus: limits.cpu_millis.map(|millis| i64::from(millis) * NANO_CPUS_A_MILLI),
            memory,
            // As much as the memory: none of it is swap.
            memory_swap: memory,
            shm_size: limits.shm_mib.map(|mib| i64::from(mib) * MIB),
            network_mode: self.network.clone(),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(log.map(|(key, value)| (key.to_owned(), value)).into()),
            }),
            ..HostConfig::default()
        }
    }

    /// What a container in a listing is; `None`: not this installation's.
    pub(super) fn listed(&self, summary: &ContainerSummary) -> Option<ListedContainer> {
        let key = self.key(summary.labels.as_ref()?)?;
        let presence = presence(summary.state.as_ref());
        Some(ListedContainer { key, container: ContainerId(summary.id.clone()?), presence })
    }

    /// Which generation the labels name; `None`: not this installation's.
    pub(super) fn key(&self, labels: &HashMap<String, String>) -> Option<ContainerKey> {
        let label = |name: &str| labels.get(name).map(String::as_str);
        if label(LABEL_INSTALLATION)?.parse() != Ok(self.installation) {
            return None;
        }
        let slot = SlotId(label(LABEL_SLOT)?.parse().ok()?);
        Some(ContainerKey { slot, generation: Generation(label(LABEL_GENERATION)?.parse().ok()?) })
    }
}

/// Whether a container of this state runs, by the engine's word for it. One whose state is not known may.
pub(super) fn presence(state: Option<&impl AsRef<str>>) -> Presence {
    match state.map_or("", AsRef::as_ref) {
        "created" => Presence::Prepared,
        "exited" | "dead" | "removing" => Presence::Gone,
        _ => Presence::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ContainerSummaryStateEnum;

    fn recipe() -> Recipe {
        Recipe {
            installation: Uuid::from_u128(1),
            server_url: "http://s:1".into(),
            network: None,
            log_max_mib: 3,
        }
    }

    fn key() -> ContainerKey {
        ContainerKey { slot: SlotId(Uuid::from_u128(2)), generation: Generation(7) }
    }

    fn body(limits: ResourceLimits) -> ContainerCreateBody {
        let slot_name = SlotName("pool-zoom-001".into());
        recipe().body(Wanted { key: key(), slot_name: &slot_name, image: "i:1", limits, token: "secret" })
    }

    #[test]
    fn what_is_made_is_found_again_by_its_labels() {
        let body = body(ResourceLimits::default());
        let labels = body.labels.expect("labels");
        assert_eq!(recipe().key(&labels), Some(key()));
        let another = Recipe { installation: Uuid::from_u128(9), ..recipe() };
        assert_eq!(another.key(&labels), None);
        let damaged = |label: &str, value: &str| {
            let mut labels = labels.clone();
            labels.insert(label.to_owned(), value.to_owned());
            recipe().key(&labels)
        };
        assert_eq!((damaged(LABEL_SLOT, "x"), damaged(LABEL_GENERATION, "")), (None, None));
        let text = format!("{labels:?}");
        assert!(!text.contains("secret"), "labels are shown to everybody: {text}");
    }

    #[test]
    fn limits_are_in_the_engines_units_and_unset_where_there_are_none() {
        let free = body(ResourceLimits::default()).host_config.expect("set");
        assert_eq!((free.nano_cpus, free.memory, free.memory_swap, free.shm_size), (None, None, None, None));
        let limits = ResourceLimits { cpu_millis: Some(1_500), memory_mib: Some(2_048), shm_mib: Some(512) };
        let bound = body(limits).host_config.expect("set");
        assert_eq!(bound.nano_cpus, Some(1_500_000_000));
        assert_eq!((bound.memory, bound.memory_swap), (Some(2 << 30), Some(2 << 30)));
        assert_eq!(bound.shm_size, Some(512 << 20));
        let log = bound.log_config.and_then(|log| log.config).expect("bounded");
        assert_eq!((log["max-size"].as_str(), log["max-file"].as_str()), ("1536k", "2"));
    }

    #[test]
    fn what_a_listing_says() {
        let labels = body(ResourceLimits::default()).labels;
        for (state, presence) in [
            (ContainerSummaryStateEnum::CREATED, Presence::Prepared),
            (ContainerSummaryStateEnum::RUNNING, Presence::Running),
            (ContainerSummaryStateEnum::PAUSED, Presence::Running),
            (ContainerSummaryStateEnum::EXITED, Presence::Gone),
            (ContainerSummaryStateEnum::DEAD, Presence::Gone),
        ] {
            let (id, labels) = (Some("c".to_owned()), labels.clone());
            let summary = ContainerSummary { id, labels, state: Some(state), ..ContainerSummary::default() };
            let listed = recipe().listed(&summary).expect("ours");
            assert_eq!((listed.key, listed.presence), (key(), presence), "{state}");
        }
        assert_eq!(recipe().listed(&ContainerSummary::default()), None);
    }
}
