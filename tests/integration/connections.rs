//! What clients may expect of a connection: that it is kept, that a slow one is waited for, that it does not hold a stop.

use crate::support::server::Server;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
/// Beyond the 5 s after which many a server's defaults give a connection up.
const IDLE: Duration = Duration::from_secs(7);
/// How long an answer may take on a machine that is busy with other tests.
const ANSWER: Duration = Duration::from_secs(20);

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: meeboter\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap()
}

/// Reads an answer, which has to be a whole `200` and to leave the connection open.
async fn check_answer(connection: &mut TcpStream) {
    let mut answer = vec![0; 4096];
    let mut length = 0;
    let whole = async {
        while !answer[..length].ends_with(b"}") {
            let read = connection.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the connection ended in {:?}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
    };
    timeout(ANSWER, whole).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
}

/// Sees that the server says nothing and does not hang up for as long as [`IDLE`].
async fn check_kept(connection: &mut TcpStream) {
    let mut answer = [0; 64];
    if let Ok(read) = timeout(IDLE, connection.read(&mut answer)).await {
        panic!(
            "the server hung up, or said {:?}",
            read.map(|read| String::from_utf8_lossy(&answer[..read]).into_owned())
        );
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let server = Server::start(&[]).await;
    let mut connection = connect(&server).await;
    connection.write_all(REQUEST).await.unwrap();
    check_answer(&mut connection).await;
    check_kept(&mut connection).await;
    connection.write_all(REQUEST).await.unwrap();
    check_answer(&mut connection).await;
}

#[tokio::test]
async fn a_request_may_come_slowly() {
    let server = Server::start(&[]).await;
    let mut connection = connect(&server).await;
    let (first, rest) = REQUEST.split_at(10);
    connection.write_all(first).await.unwrap();
    check_kept(&mut connection).await;
    connection.write_all(rest).await.unwrap();
    check_answer(&mut connection).await;
}

#[tokio::test]
async fn a_kept_connection_does_not_hold_a_stop() {
    let mut server = Server::start(&[]).await;
    let mut connection = connect(&server).await;
    connection.write_all(REQUEST).await.unwrap();
    check_answer(&mut connection).await;
    let asked = Instant::now();
    assert!(server.terminate().success());
    assert!(
        asked.elapsed() < 4 * SECOND,
        "a stop waits 5 s for what is under way, and this took {:?}",
        asked.elapsed()
    );
    let ended = timeout(ANSWER, connection.read(&mut [0; 64])).await.expect("an end in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn there_may_be_as_many_connections_as_the_machine_allows() {
    let server = Server::start(&[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] =
        [3, 4].map(|column| files.split_whitespace().nth(column).unwrap().parse::<u64>().unwrap_or(u64::MAX));
    assert_eq!(soft, hard.min(65_536), "{files}");
}
