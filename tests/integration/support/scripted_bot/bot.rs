//! A bot that follows a script, with nothing but the standard library: linked statically it is all that its image holds.
//! The argument is the script:
//!
//! - `attend`: claims its slot's bot, joins, sends heartbeats, and leaves when it is told to;
//! - `stay`: says so, and does nothing;
//! - `fail`: says so, and ends with code 7;
//! - `record`: leaves two pieces of a recording that nobody uploads, an exit note, and ends with code 1.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

/// Time between two questions whether a bot is assigned yet, and between two heartbeats.
const BEAT: Duration = Duration::from_millis(200);
/// How long a server may be away before this bot gives up.
const SERVER_AWAY_MAX: u32 = 300;

fn main() {
    let script = std::env::args().nth(1).unwrap_or_default();
    println!("script {script}");
    match script.as_str() {
        "attend" => attend(),
        "stay" => loop {
            sleep(Duration::from_secs(3600));
        },
        "fail" => {
            // Where the other lines go: an engine keeps no order between two streams.
            println!("this bot fails");
            exit(7);
        }
        "record" => record(),
        other => {
            eprintln!("there is no script {other:?}");
            exit(2);
        }
    }
}

fn record() {
    let work = variable("MEEBOTER_WORK_DIR");
    let run = format!("{work}/spool/001");
    fs::create_dir_all(&run).unwrap();
    fs::write(format!("{work}/bot"), "7\n").unwrap();
    for piece in ["000000-init.mp4", "000001.m4s", "list.m3u8"] {
        fs::write(format!("{run}/{piece}"), piece).unwrap();
    }
    let note = r#"{"code":1,"reason":"the meeting fell over","at":"2026-01-01T00:00:00Z"}"#;
    fs::write(format!("{work}/exit.json"), note).unwrap();
    exit(1);
}

fn attend() {
    let (slot, token) = (variable("POOL_SLOT_UUID"), variable("MILO_AUTH_TOKEN"));
    // Any will do that no other process has.
    let nonce = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    let claim = format!(r#"{{"nonce":"{}"}}"#, nonce.trim());
    let assignment = loop {
        match ask("POST", &format!("/api/slots/{slot}/assignment"), &token, &claim) {
            (200, assignment) => break assignment,
            (204, _) => sleep(BEAT),
            (status, body) => {
                eprintln!("the claim was answered {status} {body}");
                exit(3);
            }
        }
    };
    let (bot, generation) = (number(&assignment, "botId"), number(&assignment, "generation"));
    let token = text(&assignment, "token");
    let mut seq = number(&assignment, "nextReportSeq");
    let mut report = |status: &str, more: &str| {
        let at = "2026-01-01T00:00:00Z";
        let body =
            format!(r#"{{"generation":{generation},"seq":{seq},"at":"{at}","status":"{status}"{more}}}"#);
        let (answered, body) = ask("PATCH", &format!("/api/bots/{bot}/status"), &token, &body);
        seq += 1;
        if answered != 200 {
            eprintln!("the report of {status} was answered {answered} {body}");
            exit(4);
        }
    };
    report("IN_CALL", "");
    println!("bot {bot} attends");
    loop {
        let body = format!(r#"{{"generation":{generation}}}"#);
        let (answered, commands) = ask("POST", &format!("/api/bots/{bot}/heartbeat"), &token, &body);
        if answered != 200 || commands.contains("\"shouldLeave\":true") {
            break;
        }
        sleep(BEAT);
    }
    report("DONE", r#","reason":"left_by_request""#);
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        eprintln!("{name} is not set");
        exit(2);
    })
}

/// Asks the server until it answers; the status and the body.
fn ask(method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    for _ in 0..SERVER_AWAY_MAX {
        match ask_once(method, path, token, body) {
            Ok((status, _)) if status >= 500 => sleep(BEAT),
            Ok(answer) => return answer,
            Err(_) => sleep(BEAT),
        }
    }
    eprintln!("no server answers");
    exit(5);
}

fn ask_once(method: &str, path: &str, token: &str, body: &str) -> io::Result<(u16, String)> {
    let server = variable("MILO_URL");
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nx-milo-token: {token}\r\n\
        Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(500);
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    Ok((status, rest.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// A member of a flat JSON object; these have neither spaces nor escapes.
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    let rest = json.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest);
    rest.split([',', '}']).next().unwrap_or_default()
}

fn number(json: &str, name: &str) -> i64 {
    member(json, name).parse().unwrap_or_else(|_| {
        eprintln!("{name} is missing in {json}");
        exit(2);
    })
}

fn text(json: &str, name: &str) -> String {
    member(json, name).trim_matches('"').to_owned()
}
