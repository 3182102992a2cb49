//! The images of the Dockerfile, built and run: the server on a PostgreSQL, and bots in a meeting, with nothing but what is
//! in them.

use super::base::{self, DEBIAN, RUST, say};
use crate::support::client::{answer, client};
use crate::support::dockerd::Dockerd;
use crate::support::media::Media;
use crate::support::postgres::{fresh_database, operators_key};
use crate::support::proxy::Proxy;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
const MIB: u64 = 1 << 20;
/// What the images may add to the base, with programs that are compiled for tests.
const SERVER_MAX: u64 = 350 * MIB;
const BOT_MAX: u64 = 1_300 * MIB;

/// Builds a target of the Dockerfile; says what is being done, for it takes minutes.
fn build(dockerd: &Dockerd, target: &str) -> String {
    // Its registry is nobody: such an image is either on the host or nowhere.
    let (image, began) = (format!("127.0.0.1:1/meeboter-{target}"), Instant::now());
    let mut command = dockerd.docker();
    command.args(["build", "--network=host", "--target", target, "--tag", &image]);
    command.args([
        "--build-arg",
        &format!("RUST_IMAGE={RUST}"),
        "--build-arg",
        &format!("BASE_IMAGE={DEBIAN}"),
    ]);
    // The builder that every engine has.
    command.arg(env!("CARGO_MANIFEST_DIR")).env("DOCKER_BUILDKIT", "0");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("Step ") {
            say(&format!("{target}: {}", line.chars().take(100).collect::<String>()));
        }
        said.push_str(&line);
        said.push('\n');
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let size = (size(dockerd, &image) - size(dockerd, DEBIAN)) / MIB;
    say(&format!("{target}: built in {:?}, {size} MiB on top of {DEBIAN}", began.elapsed()));
    image
}

fn inspect(dockerd: &Dockerd, what: &str, format: &str) -> String {
    dockerd.run(&["inspect", "--format", format, what])
}

fn size(dockerd: &Dockerd, image: &str) -> u64 {
    inspect(dockerd, image, "{{.Size}}").parse().unwrap()
}

/// The server of the image, in a container.
struct Contained<'a> {
    dockerd: &'a Dockerd,
    base: String,
    key: String,
    client: Client,
}

/// The name of its container.
const SERVER: &str = "meeboter-test-server";

impl<'a> Contained<'a> {
    /// Starts it on a database, with the engine that it is in itself to run bots of the other image.
    fn start(dockerd: &'a Dockerd, database_url: &str, images: [&str; 2], key: String) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
        let socket = dockerd.host().trim_start_matches("unix://").to_owned();
        let group = std::fs::metadata(&socket).unwrap().gid().to_string();
        let mount = format!("{socket}:/var/run/docker.sock");
        let [server, bot] = images;
        let mut arguments = vec![
            "run",
            "--detach",
            "--name",
            SERVER,
            "--network=host",
            "--group-add",
            &group,
            "--volume",
            &mount,
        ];
        let settings: [(&str, &str); 9] = [
            ("DATABASE_URL", database_url),
            ("MEEBOTER_SERVER__PORT", &port),
            ("MEEBOTER_SERVER__BIND", "127.0.0.1"),
            ("MEEBOTER_DRIVER__KIND", "docker"),
            ("MEEBOTER_DOCKER__NETWORK", "host"),
            ("MEEBOTER_REHEARSAL__ENABLED", "true"),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", bot),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
            ("MEEBOTER_BOTS__SEGMENT_MS", "2000"),
        ];
        let settings = settings.map(|(name, value)| format!("--env={name}={value}"));
        arguments.extend(settings.iter().map(String::as_str));
        arguments.push(server);
        dockerd.run(&arguments);
        Self { dockerd, base: format!("http://127.0.0.1:{port}"), key, client: client() }
    }

    fn log(&self) -> String {
        let output = self.dockerd.docker().args(["logs", "--tail", "200", SERVER]).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).header("x-api-key", &self.key)
    }

    /// Waits until the engine says of the container what it should.
    async fn wait_health(&self, wanted: &str) {
        let deadline = Instant::now() + MINUTE;
        loop {
            let health = inspect(self.dockerd, SERVER, "{{.State.Status}} {{.State.Health.Status}}");
            if health == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{health}\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a bot to a meeting; its path.
    async fn send(&self, length_ms: u32) -> String {
        let options = format!("host=admit&admitAfterMs=300&guestJoinMs=500&lengthMs={length_ms}&end=ended");
        let meeting = format!("{}/rehearsal/contained?{options}", self.base);
        let bot = json!({ "meetingInfo": { "platform": "rehearsal", "meetingUrl": meeting } });
        let (status, bot) = answer(self.request(Method::POST, "/api/bots").json(&bot)).await;
        assert_eq!(status, StatusCode::CREATED, "{bot}");
        format!("/api/bots/{}", bot["id"])
    }

    /// Waits until a bot is as wanted.
    async fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + 3 * MINUTE;
        loop {
            let (_, bot) = answer(self.request(Method::GET, path)).await;
            if wanted(&bot) {
                return bot;
            }
            assert!(Instant::now() < deadline, "{bot}\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is recorded of a bot.
    async fn media(&self, path: &str) -> Media {
        let (status, link) = answer(self.request(Method::GET, &format!("{path}/recording"))).await;
        assert_eq!(status, StatusCode::OK, "{link}\n{}", self.log());
        let file = self.client.get(link["recordingUrl"].as_str().unwrap()).send().await.unwrap();
        Media::of(&file.bytes().await.unwrap())
    }

    /// Kills the container of a bot that records while its server hears nothing: when so many pieces wait in it.
    async fn kill_bot(&self, pieces: usize) {
        let running = ["ps", "--quiet", "--filter", "label=meeboter.slot-name=pool-rehearsal-001"];
        let bot = self.dockerd.run(&running);
        self.dockerd.run(&["pause", SERVER]);
        let deadline = Instant::now() + MINUTE;
        let spooled = ["exec", &bot, "find", "/tmp/meeboter/spool", "-name", "*.m4s"];
        while self.dockerd.run(&spooled).lines().count() < pieces {
            assert!(Instant::now() < deadline, "nothing is recorded while the server is away");
            tokio::time::sleep(LOOK).await;
        }
        self.dockerd.run(&["kill", &bot]);
        self.dockerd.run(&["unpause", SERVER]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_images_are_built_and_a_contained_server_records_a_meeting_with_a_contained_bot() {
    let dockerd = Dockerd::start().await;
    base::import(&dockerd);
    let (server, bot) = (build(&dockerd, "server"), build(&dockerd, "bot"));
    for (image, user, max) in [(&server, "meeboter", SERVER_MAX), (&bot, "bot", BOT_MAX)] {
        assert_eq!(inspect(&dockerd, image, "{{.Config.User}}"), user);
        assert!(size(&dockerd, image) - size(&dockerd, DEBIAN) <= max, "{image} has grown");
        let id = dockerd.run(&["run", "--rm", "--network=host", "--entrypoint=id", image, "--user"]);
        assert_eq!(id, "10001", "{image}");
    }

    // Without a database it says what it needs.
    let alone = dockerd.docker().args(["run", "--rm", "--network=host", &server]).output().unwrap();
    let complaint = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("DATABASE_URL"), "{complaint}");

    let database = fresh_database().await;
    let proxy = Proxy::before(&database).await;
    say("starting a server of the image");
    let mut contained = Contained::start(&dockerd, proxy.url(), [&server, &bot], String::new());
    contained.wait_health("running healthy").await;
    assert_eq!(answer(contained.request(Method::GET, "/healthz")).await.0, StatusCode::OK);
    contained.key = operators_key(&database).await;
    say("a bot of the image attends a meeting");
    let bot = contained.send(8_000).await;
    let ended = contained.wait(&bot, |bot| bot["recordingState"] == "ready" || bot["state"] == "FATAL").await;
    let media = contained.media(&bot).await;
    assert_eq!((&ended["state"], &ended["endReason"]), (&json!("DONE"), &json!("meeting_ended")), "{ended}");
    assert!(media.has_picture && media.has_sound && media.complaints.is_empty(), "{media:?}");
    assert!(media.seconds > 4.0, "{media:?}");

    say("a bot is killed while its server hears nothing");
    let bot = contained.send(120_000).await;
    contained.wait(&bot, |bot| bot["state"] == "RECORDING").await;
    contained.kill_bot(4).await;
    let ended = contained.wait(&bot, |bot| bot["state"] == "FATAL").await;
    assert_eq!(ended["endReason"], "crashed", "{ended}");
    // Joined again when what lay in the container is there: pieces are two seconds long.
    let deadline = Instant::now() + 2 * MINUTE;
    loop {
        contained.wait(&bot, |bot| bot["recordingState"] == "ready").await;
        let media = contained.media(&bot).await;
        if media.seconds >= 6.0 && media.complaints.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{media:?}\n{}", contained.log());
        tokio::time::sleep(LOOK).await;
    }

    for program in ["pg_dump", "pg_restore"] {
        let version = dockerd.run(&["exec", SERVER, program, "--version"]);
        assert!(version.contains(" 17."), "as compose.yaml's PostgreSQL: {version}");
    }

    dockerd.run(&["stop", "--time", "15", SERVER]);
    assert_eq!(inspect(&dockerd, SERVER, "{{.State.ExitCode}}"), "0", "{}", contained.log());
}
