//! The demonstration: real bots in rehearsal meetings, through the public API.
