//! Segments and recordings in the embedded store: through the proxy as a client sees it, joined with real ffmpeg.

use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{App, HttpServer};
use aws_credential_types::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use meeboter::artifacts::embedded::EmbeddedS3;
use meeboter::artifacts::proxy::ObjectProxy;
use meeboter::artifacts::{Failure, S3Artifacts, S3Keys, S3Settings};
use meeboter_actors::ids::{BotId, Generation};
use meeboter_actors::ports::{Artifacts, ArtifactsError};
use meeboter_actors::recording::Joined;
use meeboter_bot::{SegmentPart, segment_key};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUCKET: &str = "recordings-here";
const VIDEO: &str = "video/mp4";
const SOON: Duration = Duration::from_secs(60);
const BOT: BotId = BotId(7);
const GENERATION: Generation = Generation(2);
const OBJECT: &str = "bots/7/recordings/01.mp4";

fn quiet() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// A store, its client, and a server that lets the world through to it.
struct Bench {
    data: TempDir,
    store: EmbeddedS3,
    artifacts: S3Artifacts,
    base: String,
}

impl Bench {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = EmbeddedS3::start(data.path(), quiet()).await.unwrap();
        let artifacts = S3Artifacts::new(settings(&store, data.path()), quiet()).unwrap();
        artifacts.ensure_bucket().await.unwrap();
        let proxy = ObjectProxy::new(store.address(), BUCKET.to_owned(), quiet());
        let server = HttpServer::new(move || App::new().configure(|cfg| proxy.configure(cfg)));
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let base = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { data, store, artifacts, base }
    }

    async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let url = self.artifacts.presign_put(key, VIDEO, SOON, &self.base).await.unwrap();
        let answer = send(Method::PUT, &url, &[("content-type", VIDEO)], bytes.into()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    }

    async fn get(&self, key: &str) -> Answer {
        let url = self.artifacts.presign_get(key, SOON, &self.base, None).await.unwrap();
        send(Method::GET, &url, &[], Bytes::new()).await
    }

    async fn put_run(&self, run: u32, recorded: &Recorded) {
        self.put(&segment_key(BOT.0, GENERATION.0, run, SegmentPart::Init), recorded.init()).await;
        for (index, segment) in (1..).zip(&recorded.segments) {
            let key = segment_key(BOT.0, GENERATION.0, run, SegmentPart::Media { index });
            self.put(&key, segment.clone()).await;
        }
    }

    async fn join(&self) -> Result<Option<Joined>, ArtifactsError> {
        let joined = self.artifacts.join(BOT, GENERATION, OBJECT).await;
        let left = fs::read_dir(self.data.path().join("tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are removed");
        joined
    }

    /// What a player says of the joined object: its length by its own account, and after playing it all.
    async fn check_plays(&self, joined: &Joined, expected: Duration) {
        let object = self.get(&joined.key).await;
        assert_eq!(object.status, StatusCode::OK);
        assert_eq!(object.body.len(), usize::try_from(joined.bytes).unwrap());
        let moov = object.body.windows(4).position(|four| four == b"moov").unwrap();
        let mdat = object.body.windows(4).position(|four| four == b"mdat").unwrap();
        assert!(moov < mdat, "players begin before they have it all");
        let path = self.data.path().join("played.mp4");
        fs::write(&path, &object.body).unwrap();
        let played = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(&path)
            .args(["-f", "null", "-"])
            .output()
            .unwrap();
        assert!(played.status.success() && played.stderr.is_empty(), "{played:?}");
        let frames = Command::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-select_streams", "v", "-show_entries"])
            .args(["stream=nb_read_packets", "-of", "default=noprint_wrappers=1:nokey=1"])
            .arg(&path)
            .output()
            .unwrap();
        let frames: u64 = String::from_utf8(frames.stdout).unwrap().trim().parse().unwrap();
        let near = |ms: u64| ms.abs_diff(u64::try_from(expected.as_millis()).unwrap()) < 200;
        assert!(near(u64::try_from(joined.duration_ms).unwrap()), "{joined:?}, not {expected:?}");
        assert!(near(frames * 1000 / FRAME_RATE), "{frames} frames, not {expected:?}");
    }
}

fn settings(store: &EmbeddedS3, data: &Path) -> S3Settings {
    S3Settings {
        endpoint: store.endpoint(),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        keys: store.keys().clone(),
        temp_dir: data.join("tmp"),
        join_bytes_max: S3Settings::JOIN_BYTES_MAX,
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// No script runs in what is answered, whatever it is; a player may still fetch it.
fn is_contained(answer: &Answer) -> bool {
    let policy = answer.header(header::CONTENT_SECURITY_POLICY).unwrap_or_default();
    let parts: Vec<&str> = policy.split(';').map(str::trim).collect();
    let has = |wanted| parts.contains(&wanted);
    has("sandbox allow-same-origin") && has("default-src 'none'") && has("media-src 'self'")
}

async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
    let mut request = awc::Client::new().request(method, url).timeout(SOON);
    for header in headers {
        request = request.insert_header(*header);
    }
    let mut answer = request.send_body(body).await.unwrap();
    let body = answer.body().limit(1 << 30).await.unwrap();
    Answer { status: answer.status(), headers: answer.headers().clone(), body }
}

const FRAME_RATE: u64 = 15;

/// What a recorder leaves: an init section and segments of two seconds.
struct Recorded {
    folder: TempDir,
    segments: Vec<Bytes>,
}

impl Recorded {
    fn new(seconds: u32, filter: &str, quality: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let video = format!("testsrc=size=320x180:rate={FRAME_RATE}{filter}");
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", "sine=sample_rate=48000"])
            .args(["-t", &seconds.to_string(), "-c:v", "libx264", "-preset", "ultrafast", "-crf", quality])
            .args(["-pix_fmt", "yuv420p", "-g", "600", "-force_key_frames", "expr:gte(t,n_forced*2)"])
            .args(["-c:a", "aac", "-ac", "2", "-f", "hls", "-hls_time", "2", "-hls_list_size", "0"])
            .args(["-hls_segment_type", "fmp4", "-start_number", "1", "-hls_flags", "independent_segments"])
            .args(["-hls_fmp4_init_filename", "init.mp4", "-hls_segment_filename", "%06d.m4s", "list.m3u8"])
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(status.success());
        let path = |index: u32| -> PathBuf { folder.path().join(format!("{index:06}.m4s")) };
        let segments = (1..).map_while(|index| fs::read(path(index)).ok()).map(Bytes::from).collect();
        Self { folder, segments }
    }

    fn short() -> Self {
        Self::new(6, "", "30")
    }

    fn init(&self) -> Bytes {
        fs::read(self.folder.path().join("init.mp4")).unwrap().into()
    }
}

#[actix_web::test]
async fn an_object_goes_in_and_out_by_signed_urls_of_this_servers_own_address() {
    let bench = Bench::new().await;
    let bytes = Bytes::from((0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    bench.put("recordings/7/2/001/000001.m4s", bytes.clone()).await;
    let got = bench.get("recordings/7/2/001/000001.m4s").await;
    assert_eq!((got.status, got.body == bytes), (StatusCode::OK, true));
    assert_eq!(got.header(header::CONTENT_TYPE), Some(VIDEO));
    assert!(is_contained(&got), "{:?}", got.header(header::CONTENT_SECURITY_POLICY));
    assert_eq!(got.header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
    let name = "a meeting.mp4";
    let url = bench.artifacts.presign_get("recordings/7/2/001/000001.m4s", SOON, &bench.base, Some(name));
    let saved = send(Method::GET, &url.await.unwrap(), &[], Bytes::new()).await;
    assert_eq!(saved.header(header::CONTENT_DISPOSITION), Some("attachment; filename=\"a meeting.mp4\""));
}

#[actix_web::test]
async fn a_player_can_seek() {
    let bench = Bench::new().await;
    bench.put("a", "0123456789").await;
    let url = bench.artifacts.presign_get("a", SOON, &bench.base, None).await.unwrap();
    let part = send(Method::GET, &url, &[("range", "bytes=2-4")], Bytes::new()).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(part.header(header::CONTENT_RANGE), Some("bytes 2-4/10"));
    assert_eq!(part.header(header::ACCEPT_RANGES), Some("bytes"));
    let beyond = send(Method::GET, &url, &[("range", "bytes=20-")], Bytes::new()).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[actix_web::test]
async fn only_what_was_signed_is_answered() {
    let bench = Bench::new().await;
    bench.put("a", "secret").await;
    let get = bench.artifacts.presign_get("a", SOON, &bench.base, None).await.unwrap();
    let put = bench.artifacts.presign_put("b", VIDEO, SOON, &bench.base).await.unwrap();
    let elsewhere = bench.artifacts.presign_get("a", SOON, "http://elsewhere.example", None).await.unwrap();
    let bucket = format!("{}/{BUCKET}", bench.base);
    let video = ("content-type", VIDEO);
    let refused = [
        (Method::GET, get.replace("/a?", "/b?"), video),
        (Method::GET, get.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), video),
        (Method::GET, format!("{bucket}/a"), video),
        (Method::PUT, get.clone(), video),
        (Method::PUT, put.clone(), ("content-type", "text/html")),
        (Method::GET, elsewhere.replace("http://elsewhere.example", &bench.base), video),
        (Method::PUT, put.replace("X-Amz-Signature=", "X-Amz-Signature=0"), video),
        (Method::GET, get.clone(), ("host", "elsewhere.example")),
    ];
    for (method, url, header) in refused {
        let answer = send(method.clone(), &url, &[header], Bytes::from_static(b"x")).await;
        assert!(answer.status.is_client_error(), "{method} {url}: {}", answer.status);
        assert!(!answer.body.windows(6).any(|six| six == b"secret"));
        assert!(is_contained(&answer), "{:?}", answer.header(header::CONTENT_SECURITY_POLICY));
    }
    let large = Bytes::from(vec![0; 9 << 20]);
    let (unsigned, signature) = put.split_once("X-Amz-Signature=").unwrap();
    let (signature, rest) = signature.split_at(64);
    let signature: String = signature.chars().rev().collect();
    let wrong = format!("{unsigned}X-Amz-Signature={signature}{rest}");
    let answer = awc::Client::new().put(wrong).insert_header(("content-type", VIDEO));
    let answer = answer.insert_header(("expect", "100-continue")).send_body(large).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    for path in ["", "/", "?list-type=2"] {
        let answer = send(Method::GET, &format!("{bucket}{path}"), &[], Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let gone = send(Method::DELETE, &get, &[], Bytes::new()).await;
    assert!(gone.status.is_client_error());
    assert_eq!(bench.get("a").await.body, "secret");
}

#[actix_web::test]
async fn an_upload_must_say_how_long_it_is_and_not_be_too_long() {
    let bench = Bench::new().await;
    let url = bench.artifacts.presign_put("a", VIDEO, SOON, &bench.base).await.unwrap();
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
    let answer = awc::Client::new().put(&url).insert_header(("content-type", VIDEO)).send_stream(chunks);
    assert_eq!(answer.await.unwrap().status(), StatusCode::LENGTH_REQUIRED);
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {VIDEO}\r\ncontent-length: {}\r\n\r\n",
        300 << 20
    );
    let mut connection = TcpStream::connect(host).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    tokio::time::timeout(SOON, connection.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 413", "before any of it is read");
}

#[actix_web::test]
async fn a_head_tells_the_size_without_the_bytes() {
    let bench = Bench::new().await;
    bench.put("a", "0123456789").await;
    let S3Keys { access_key, secret_key } = bench.store.keys().clone();
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .endpoint_url(&bench.base)
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .force_path_style(true);
    let head = aws_sdk_s3::Client::from_conf(config.build()).head_object().bucket(BUCKET).key("a");
    let signed = head.presigned(PresigningConfig::expires_in(SOON).unwrap()).await.unwrap();
    let answer = send(Method::HEAD, signed.uri(), &[], Bytes::new()).await;
    assert_eq!((answer.status, answer.header(header::CONTENT_LENGTH)), (StatusCode::OK, Some("10")));
    assert!(answer.body.is_empty());
}

#[actix_web::test]
async fn an_upload_that_breaks_off_changes_nothing() {
    let bench = Bench::new().await;
    bench.put("a", "before").await;
    let url = bench.artifacts.presign_put("a", VIDEO, SOON, &bench.base).await.unwrap();
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {VIDEO}\r\ncontent-length: 1000\r\n\r\nonly this"
    );
    let mut connection = TcpStream::connect(host).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(bench.get("a").await.body, "before");
    let left = fs::read_dir(bench.data.path().join("objects")).unwrap();
    let left: Vec<_> = left.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".tmp")), "{left:?}");
}

#[actix_web::test]
async fn the_store_survives_a_restart_with_its_keys() {
    let Bench { data, store, artifacts, .. } = Bench::new().await;
    let keys = store.keys().clone();
    let url = artifacts.presign_put("a", VIDEO, SOON, &store.endpoint()).await.unwrap();
    send(Method::PUT, &url, &[("content-type", VIDEO)], Bytes::from_static(b"kept")).await;
    drop(store);
    let store = EmbeddedS3::start(data.path(), quiet()).await.unwrap();
    assert_eq!(*store.keys(), keys);
    let artifacts = S3Artifacts::new(settings(&store, data.path()), quiet()).unwrap();
    artifacts.ensure_bucket().await.unwrap();
    let url = artifacts.presign_get("a", SOON, &store.endpoint(), None).await.unwrap();
    assert_eq!(send(Method::GET, &url, &[], Bytes::new()).await.body, "kept");
}

#[actix_web::test]
async fn a_bucket_that_cannot_be_used_is_named() {
    let bench = Bench::new().await;
    let keys = S3Keys { access_key: "wrong".to_owned(), secret_key: "wrong".to_owned() };
    let refused = S3Settings { keys, ..settings(&bench.store, bench.data.path()) };
    let refused = S3Artifacts::new(refused, quiet()).unwrap().ensure_bucket().await.unwrap_err();
    assert!(refused.to_string().contains(BUCKET) && !refused.is_retryable(), "{refused}");
    let mut absent = settings(&bench.store, bench.data.path());
    absent.endpoint = "http://127.0.0.1:1".to_owned();
    let absent = S3Artifacts::new(absent, quiet()).unwrap().ensure_bucket().await.unwrap_err();
    assert!(matches!(absent, Failure::Unanswered { .. }) && absent.is_retryable(), "{absent}");
}

#[actix_web::test]
async fn nothing_recorded_joins_to_nothing() {
    let bench = Bench::new().await;
    assert_eq!(bench.artifacts.count_segments(BOT, GENERATION).await.unwrap(), 0);
    assert_eq!(bench.join().await.unwrap(), None);
    bench.put(&segment_key(BOT.0, GENERATION.0, 1, SegmentPart::Init), Recorded::short().init()).await;
    assert_eq!(bench.artifacts.count_segments(BOT, GENERATION).await.unwrap(), 0);
    assert_eq!(bench.join().await.unwrap(), None);
}

#[actix_web::test]
async fn a_run_becomes_one_playable_object() {
    let bench = Bench::new().await;
    bench.put_run(1, &Recorded::short()).await;
    assert_eq!(bench.artifacts.count_segments(BOT, GENERATION).await.unwrap(), 3);
    assert_eq!(bench.artifacts.count_segments(BOT, Generation(1)).await.unwrap(), 0);
    let joined = bench.join().await.unwrap().unwrap();
    assert_eq!(joined.key, OBJECT);
    bench.check_plays(&joined, Duration::from_secs(6)).await;
    assert_eq!(bench.join().await.unwrap(), Some(joined), "again is the same");
}

#[actix_web::test]
async fn runs_follow_each_other_and_one_without_a_beginning_is_left_out() {
    let bench = Bench::new().await;
    bench.put_run(1, &Recorded::short()).await;
    bench.put_run(3, &Recorded::new(4, ",negate", "30")).await;
    let headless = segment_key(BOT.0, GENERATION.0, 2, SegmentPart::Media { index: 1 });
    bench.put(&headless, Recorded::short().segments[0].clone()).await;
    assert_eq!(bench.artifacts.count_segments(BOT, GENERATION).await.unwrap(), 6);
    let joined = bench.join().await.unwrap().unwrap();
    bench.check_plays(&joined, Duration::from_secs(10)).await;
}

#[actix_web::test]
async fn a_segment_that_was_cut_short_takes_nothing_else_with_it() {
    let bench = Bench::new().await;
    let mut recorded = Recorded::new(8, "", "30");
    let last = recorded.segments.last_mut().unwrap();
    last.truncate(last.len() / 2);
    bench.put_run(1, &recorded).await;
    let joined = bench.join().await.unwrap().unwrap();
    bench.check_plays(&joined, Duration::from_secs(6)).await;
}

#[actix_web::test]
async fn a_damaged_segment_in_the_middle_leaves_a_gap_and_all_that_follows() {
    let bench = Bench::new().await;
    let mut recorded = Recorded::new(8, "", "30");
    recorded.segments[1].truncate(100);
    bench.put_run(1, &recorded).await;
    let joined = bench.join().await.unwrap().unwrap();
    let near = 8_000_i64.abs_diff(joined.duration_ms) < 200;
    assert!(near, "the rest stays at its time: {joined:?}");
}

#[actix_web::test]
async fn segments_that_cannot_be_played_are_an_error_and_not_for_trying_again() {
    let bench = Bench::new().await;
    bench.put(&segment_key(BOT.0, GENERATION.0, 1, SegmentPart::Init), "nonsense").await;
    bench.put(&segment_key(BOT.0, GENERATION.0, 1, SegmentPart::Media { index: 1 }), "nonsense").await;
    let error = bench.join().await.unwrap_err();
    assert!(!error.retryable, "{error}");
}

#[actix_web::test]
async fn a_long_recording_goes_up_in_parts() {
    let bench = Bench::new().await;
    bench.put_run(1, &Recorded::new(6, ",scale=960:540,noise=alls=100:allf=t", "8")).await;
    let joined = bench.join().await.unwrap().unwrap();
    assert!(joined.bytes > 20 << 20, "{joined:?}");
    bench.check_plays(&joined, Duration::from_secs(6)).await;
}

#[actix_web::test]
async fn a_join_whose_caller_died_is_carried_out_and_may_be_asked_for_again() {
    let bench = Bench::new().await;
    bench.put_run(1, &Recorded::short()).await;
    let mut first = Box::pin(bench.artifacts.join(BOT, GENERATION, "first"));
    assert!(futures_util::poll!(&mut first).is_pending());
    drop(first);
    // One at a time: the second begins behind the first.
    let joined = bench.join().await.unwrap().unwrap();
    bench.check_plays(&joined, Duration::from_secs(6)).await;
    assert_eq!(bench.get("first").await.body.len(), usize::try_from(joined.bytes).unwrap());
}

#[actix_web::test]
async fn a_recording_beyond_the_bound_is_refused_before_it_fills_the_disk() {
    let bench = Bench::new().await;
    bench.put_run(1, &Recorded::short()).await;
    let mut tight = settings(&bench.store, bench.data.path());
    tight.join_bytes_max = 1000;
    let tight = S3Artifacts::new(tight, quiet()).unwrap();
    let error = tight.join(BOT, GENERATION, OBJECT).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("1000"), "{error}");
}

#[actix_web::test]
async fn more_segments_than_a_page_are_all_counted() {
    let bench = Bench::new().await;
    let folder = bench.data.path().join("objects").join(BUCKET).join("recordings/7/2/001");
    fs::create_dir_all(&folder).unwrap();
    for index in 1..=2_345 {
        fs::write(folder.join(format!("{index:06}.m4s")), "x").unwrap();
    }
    assert_eq!(bench.artifacts.count_segments(BOT, GENERATION).await.unwrap(), 2_345);
}
