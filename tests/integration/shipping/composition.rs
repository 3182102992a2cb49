//! `compose.yaml` and the workflows against what they speak of: the configuration, the images, the names that servers pull.

use meeboter::config::{self, DriverKind};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What `.env` has to give.
const VALUES: [(&str, &str); 3] =
    [("POSTGRES_PASSWORD", "apassword"), ("S3_SECRET_KEY", "asecretkey"), ("DOCKER_GID", "998")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// What compose makes of the file.
fn compose(values: &[(&str, &str)]) -> Output {
    // In a folder of its own: an .env of whoever runs the tests has no say.
    let folder = tempfile::tempdir().unwrap();
    fs::copy(root().join("compose.yaml"), folder.path().join("compose.yaml")).unwrap();
    let mut command = Command::new("docker-compose");
    command.arg("config").current_dir(folder.path());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(values.iter().copied());
    command.output().expect("docker-compose, of Debian's package")
}

/// The lines below a heading at a depth of the composition, which is printed two spaces a level.
fn block<'a>(text: &'a str, path: &[&str]) -> Vec<&'a str> {
    let mut lines: Vec<&str> = text.lines().collect();
    for (depth, heading) in path.iter().enumerate() {
        let indent = "  ".repeat(depth);
        let start = lines.iter().position(|line| *line == format!("{indent}{heading}:"));
        let below = lines.split_off(start.unwrap_or_else(|| panic!("no {path:?} in\n{text}")) + 1);
        let (deeper, item) = (format!("{indent}  "), format!("{indent}- "));
        let is_below = |line: &&str| line.starts_with(&deeper) || line.starts_with(&item);
        lines = below.into_iter().take_while(is_below).collect();
    }
    lines.into_iter().map(str::trim).collect()
}

#[test]
fn the_server_of_the_composition_starts_from_settings_that_there_are() {
    let output = compose(&VALUES);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let environment = block(&text, &["services", "server", "environment"]);
    let environment = environment.into_iter().map(|line| {
        let (key, value) = line.split_once(": ").unwrap();
        (key.to_owned(), value.trim_matches(['\'', '"']).to_owned())
    });
    let settings = config::load(None, environment).unwrap().settings;
    assert_eq!(settings.driver.kind, DriverKind::Docker);
    assert_eq!(settings.database.url.expose(), "postgres://meeboter:apassword@postgres:5432/meeboter");
    let s3 = &settings.s3;
    assert_eq!((s3.endpoint.as_str(), s3.secret_key.expose()), ("http://minio:9000", "asecretkey"));

    // What it mounts and publishes is what the image has.
    let dockerfile = read("Dockerfile");
    assert!(block(&text, &["services", "server", "volumes"]).contains(&"- server:/var/lib/meeboter:rw"));
    assert!(dockerfile.contains("\nVOLUME /var/lib/meeboter\n"));
    assert!(block(&text, &["services", "server", "ports"]).contains(&"target: 3000"));
    assert!(dockerfile.contains(&format!("\nEXPOSE {}\n", settings.server.port)));
    for service in ["server", "bot"] {
        let build = block(&text, &["services", service, "build"]);
        assert!(build.contains(&format!("target: {service}").as_str()), "{build:?}");
        assert!(dockerfile.contains(&format!(" AS {service}\n")));
    }
}

#[test]
fn a_value_that_is_missing_is_named() {
    for (missing, _) in VALUES {
        let values: Vec<_> = VALUES.into_iter().filter(|(name, _)| *name != missing).collect();
        let output = compose(&values);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && complaint.contains(missing), "{missing}: {complaint}");
    }
}

#[test]
fn what_is_published_is_what_servers_pull() {
    let published = read(".github/workflows/publish.yml");
    let settings = config::load(None, Vec::new()).unwrap().settings;
    let platforms = settings.served_platforms().map(|(key, _)| format!("meeboter-{key}-bot"));
    for image in platforms.chain(["meeboter-server".to_owned()]) {
        for tag in ["latest", "sha-${{ github.sha }}"] {
            let line = format!("${{{{ steps.registry.outputs.owner }}}}/{image}:{tag}\n");
            assert!(published.contains(&line), "{line}");
        }
    }
}
