//! Servers that must not start, and say why.

use super::server;
use crate::support::server::refused;

#[tokio::test]
async fn a_second_server_does_not_start_on_the_folder_or_the_port_of_the_first() {
    let server = server("1").await;
    let folder = server.data_dir().display().to_string();
    let (status, words) = refused(&[("MEEBOTER_DATA_DIR", &folder)]).await;
    let holder = format!("(pid {})", server.pid());
    for part in ["another server uses the data folder", &folder, &holder] {
        assert!(words.contains(part), "{words:?} does not say {part:?}");
    }
    assert_eq!(status.code(), Some(1));

    let port = server.port().to_string();
    let (status, words) = refused(&[("MEEBOTER_SERVER__PORT", &port)]).await;
    for part in [&port, "server.port", "something else"] {
        assert!(words.contains(part), "{words:?} does not say {part:?}");
    }
    assert_eq!(status.code(), Some(1));
    // The first is none the worse for it.
    assert_eq!(server.bot_count().await, 0);
}

#[tokio::test]
async fn a_mistake_in_the_settings_is_named() {
    let cases: [(&str, &str, &[&str]); 5] = [
        (
            "MEEBOTER_SERVER__PORT",
            "abc",
            &["server.port", "\"abc\"", "MEEBOTER_SERVER__PORT", "a whole number"],
        ),
        ("MEEBOTER_BOTS__SEGMENT_MS", "10", &["bots.segment_ms", "10", "from 1000 to 60000"]),
        ("MEEBOTER_DRIVER__KIND", "podman", &["driver.kind", "\"podman\"", "process"]),
        ("MEEBOTER_SERVER__PROT", "3000", &["server.prot", "no such key", "server.port"]),
        (
            "DATABASE_URL",
            "mysql://user:hidden@127.0.0.1/meeboter",
            &["DATABASE_URL", "postgres://user:password@"],
        ),
    ];
    for (name, value, parts) in cases {
        let (status, words) = refused(&[(name, value)]).await;
        for part in parts {
            assert!(words.contains(part), "{words:?} does not say {part:?}");
        }
        assert!(!words.contains("hidden"), "{words:?} tells a secret");
        assert_eq!(status.code(), Some(1));
    }
}
