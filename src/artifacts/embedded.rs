//! The S3 server inside this one: objects as files of a folder, on a loopback port of its own. Its keys are made once
//! and kept beside the folder.
//!
//! A crash of the process loses nothing that was acknowledged; a crash of the machine may (nothing is synced).

use super::S3Keys;
use super::objects::Objects;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use slog::{Logger, debug, info, warn};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// Idle connections too end by it: longer than the clients of this process keep theirs (15 s and 90 s), so that none
/// is closed under a request.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(120);
/// Wait after an accept that failed, for lack of file handles most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Parts of uploads that were neither completed nor aborted are kept this long.
const PARTS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const KEYS_FILE: &str = "objects.keys.json";

/// Why the store does not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Its folder cannot be used.
    #[error("cannot use the folder for objects")]
    Folder(#[source] io::Error),
    /// Its keys cannot be read or written.
    #[error("cannot read or write the keys of the embedded store")]
    Keys(#[source] io::Error),
    /// It has no port.
    #[error("cannot listen on loopback")]
    Listen(#[source] io::Error),
    /// The library refuses the folder.
    #[error("cannot open the folder for objects: {0}")]
    Open(String),
}

/// A running store; ends when it is dropped.
pub struct EmbeddedS3 {
    address: SocketAddr,
    keys: S3Keys,
    serving: JoinHandle<()>,
}

impl EmbeddedS3 {
    /// Serves `<data_dir>/objects` on a free port, in tasks of the present runtime: not that of an actor.
    pub async fn start(data_dir: &Path, log: Logger) -> Result<Self, EmbeddedError> {
        let root = data_dir.join("objects");
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(EmbeddedError::Folder)?;
        remove_old_parts(&root).map_err(EmbeddedError::Folder)?;
        let keys = load_or_make_keys(&data_dir.join(KEYS_FILE)).map_err(EmbeddedError::Keys)?;
        let objects = Objects::open(&root).map_err(|error| EmbeddedError::Open(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(objects);
        service.set_auth(SimpleAuth::from_single(keys.access_key.clone(), keys.secret_key.clone()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(EmbeddedError::Listen)?;
        let address = listener.local_addr().map_err(EmbeddedError::Listen)?;
        info!(log, "embedded object store listens"; "address" => %address);
        let serving = tokio::spawn(serve(listener, service.build(), log));
        Ok(Self { address, keys, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for an S3 client of this process.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The keys it accepts.
    pub fn keys(&self) -> &S3Keys {
        &self.keys
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, service: S3Service, log: Logger) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Connections end with the server.
    let mut served = tokio::task::JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                served.spawn(connection(stream, service.clone(), log.clone(), permit));
            }
            Err(error) => {
                warn!(log, "embedded object store cannot accept"; "error" => %error);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
        while served.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, service: S3Service, log: Logger, _permit: OwnedSemaphorePermit) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(log, "a connection to the embedded object store broke"; "error" => %error);
    }
}

/// The library removes its other temporary files itself.
fn remove_old_parts(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_part = entry.file_name().to_string_lossy().starts_with(".upload");
        let age = SystemTime::now().duration_since(entry.metadata()?.modified()?).unwrap_or_default();
        if is_part && age > PARTS_KEPT {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The keys, made at the first start. Written beside and renamed: a crash leaves them whole or absent.
fn load_or_make_keys(path: &Path) -> io::Result<S3Keys> {
    match fs::read(path) {
        Ok(bytes) => return serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let random = || Uuid::new_v4().simple().to_string();
    let keys = S3Keys { access_key: random(), secret_key: random() + &random() };
    let written = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&written)?;
    file.write_all(&serde_json::to_vec(&keys)?)?;
    file.sync_all()?;
    fs::rename(written, path)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_for_nobody_else_to_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join(KEYS_FILE);
        let first = load_or_make_keys(&path).expect("made");
        assert_eq!(load_or_make_keys(&path).expect("read"), first);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{}").expect("written");
        assert!(load_or_make_keys(&path).is_err(), "never replaced: it would lock every object away");
    }
}
