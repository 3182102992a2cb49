//! The table of words that the reference of the slot machine goes by, [`super::machine_model`]: one for each event and
//! step.

/// The columns of the table.
pub(super) const STEPS: [&str; 17] = [
    "idle",
    "preparing",
    "prepared",
    "unprepared",
    "removing",
    "lingering",
    "pulling",
    "resuming",
    "starting",
    "retrying",
    "restarting",
    "running",
    "leaving",
    "stopping",
    "error",
    "recovering",
    "retired",
];

/// `~` stale, `-` cannot happen, `.` changes nothing, else a word of the model. `g` and `o` say that the event carries a
/// generation and an operation, `c` that it is a command. A bar stands between those without a bot, those whose bot
/// starts, those whose container runs, and the rest.
pub(super) const TABLE: &[(&str, &str, &str)] = &[
    ("assigned", "", "assign resume fetch resume instead instead | - - - - - | - - - | - - -"),
    ("pull succeeded", "o", "- - - - - - | start start ~ ~ ~ | - - - | ~ ~ -"),
    ("pull failed", "o", "- - - - - - | failed failed ~ ~ ~ | - - - | ~ ~ -"),
    ("pull declined", "o", "- - - - - - | decline decline ~ ~ ~ | - - - | ~ ~ -"),
    ("prepared", "go", "~ made ~ ~ ~ ~ | ~ ~ ~ ~ ~ | - - - | ~ ~ -"),
    ("prepare failed", "go", "~ unmade ~ ~ ~ ~ | ~ ~ ~ ~ ~ | - - - | ~ ~ -"),
    ("started", "g", "~ ~ ~ ~ ~ ~ | run run run run ~ | learn learn ~ | ~ ~ -"),
    ("start failed", "go", "- - - - - - | ~ ~ retry ~ ~ | ~ ~ - | ~ ~ -"),
    ("start failed for good", "go", "- - - - - - | ~ ~ failed ~ ~ | ~ ~ - | ~ ~ -"),
    ("claimed", "g", "~ ~ ~ ~ ~ ~ | run run run run ~ | claim claim ~ | ~ ~ -"),
    ("reported", "g", "~ ~ ~ ~ ~ ~ | - - - - ~ | report report repeat | ~ ~ -"),
    ("leave requested", "", "~ ~ ~ ~ ~ ~ | quit cancel cancel cancel cancel | leave note . | ~ ~ -"),
    ("leave requested of another", "", "~ ~ ~ ~ ~ ~ | ~ ~ ~ ~ ~ | ~ ~ ~ | ~ ~ -"),
    ("seen running", "g", "stray . stray . . . | . . run run . | . . . | . . -"),
    ("seen prepared", "g", "stray . . . . . | . . . . . | . . . | . . -"),
    ("seen gone", "g", ". . vanish . . . | . . . . . | gone gone . | . . -"),
    ("exited", "g", ". . . . . . | failed failed failed failed . | crash crash . | . . -"),
    ("heartbeat lost", "g", "~ ~ ~ ~ ~ ~ | - - - - ~ | lost lost ~ | ~ ~ -"),
    ("stopped", "go", "~ ~ ~ ~ removed ~ | - - - - anew | - - free | ~ recovered -"),
    ("stop failed", "go", "~ ~ ~ ~ linger ~ | - - - - stuck | - - unstoppable | ~ again -"),
    ("woke", "", ". . . due . due | due due due due due | due due . | due . -"),
    ("segment arrived", "g", "~ ~ ~ ~ ~ ~ | . . . . . | . segment . | ~ ~ -"),
    ("store", "c", "store . . . . . | . . . . . | . . . | . . -"),
    ("change image", "c", "image image image image image image | - - - - - | - - - | - - -"),
    ("refresh", "c", "refresh refresh refresh refresh . . | - - - - - | - - - | - - -"),
    ("prepare", "c", "prepare other other other . . | - - - - - | - - - | - - -"),
    ("unprepare", "c", ". remove remove remove . . | - - - - - | - - - | - - -"),
    ("restart", "c", "- - - - - - | halt halt halt halt . | halt - - | - - -"),
    (
        "drain",
        "c",
        "retire drain drain drain drain drain | drain drain drain drain drain | drain drain drain | drain drain -",
    ),
    (
        "undrain",
        "c",
        "undrain undrain undrain undrain undrain undrain | undrain undrain undrain undrain undrain | undrain undrain undrain | undrain undrain -",
    ),
    (
        "follow a drain",
        "c",
        "retire follow follow follow follow follow | follow follow follow follow follow | follow follow follow | follow follow -",
    ),
    (
        "follow no drain",
        "c",
        "part part part part part part | part part part part part | part part part | part part -",
    ),
    ("reset", "c", ". . . . . . | - - - - - | - - - | recover . -"),
    ("retire", "c", "retire go go go go go | - - - - - | - - - | - - -"),
    ("forget", "c", "- - - - - forget | - - - - - | - - - | forget - -"),
    ("clear out", "c", ". . . . . . | clear clear clear clear clear | leave . . | . . -"),
    ("end", "c", "- - - - - - | end end end end end | end end . | - - -"),
    ("end of another", "c", "~ ~ ~ ~ ~ ~ | ~ ~ ~ ~ ~ | ~ ~ ~ | ~ ~ -"),
];
