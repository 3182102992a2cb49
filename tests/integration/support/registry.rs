//! A registry of a test's own, Debian's `docker-registry`, behind a proxy that counts what it sends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to answer on a machine that is busy with other tests.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Time between two looks while waiting.
const LOOK: Duration = Duration::from_millis(20);
/// [`Registry::PASSWORD`] as the registry's file has it, by bcrypt.
const PASSWORD_HASH: &str = "$2b$04$1RwgF5dNnOr8UDtSVuL3a.4f4.UhlqwcdsP40OsUvqSn.qs3a3QbO";

/// See the module.
pub(crate) struct Registry {
    server: String,
    sent: Arc<AtomicU64>,
    process: Child,
    folder: TempDir,
}

impl Registry {
    /// Who may use one with a password.
    pub(crate) const USER: &str = "reader";
    /// That one's password.
    pub(crate) const PASSWORD: &str = "open sesame";

    /// One that is open to everybody.
    pub(crate) async fn start() -> Self {
        Self::configured("").await
    }

    /// One that asks who it is.
    pub(crate) async fn with_password() -> Self {
        Self::configured("auth: {htpasswd: {realm: test, path: FOLDER/users}}\n").await
    }

    async fn configured(auth: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auth = auth.replace("FOLDER", &path.to_string());
        fs::write(folder.path().join("users"), format!("{}:{PASSWORD_HASH}\n", Self::USER)).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/store}}}}\n\
            http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("docker-registry, of Debian's package of that name");
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            tokio::time::sleep(LOOK).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        // It goes with the process.
        thread::spawn(move || serve(&listener, port, &counted));
        Self { server, sent, process, folder }
    }

    /// Its name in images' references.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// An image of this registry.
    pub(crate) fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.server)
    }

    /// Bytes that it has sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says from now on what its references mean, and has nothing of what they mean; or has it again.
    pub(crate) fn withhold(&self, withheld: bool) {
        let (from, to) = if withheld { ("data", "withheld") } else { ("withheld", "data") };
        let blobs = self.folder.path().join("store/docker/registry/v2/blobs/sha256");
        for two in fs::read_dir(blobs).unwrap() {
            for blob in fs::read_dir(two.unwrap().path()).unwrap() {
                let blob = blob.unwrap().path();
                // A manifest is a blob too, the only one with a version.
                let is_manifest =
                    |content: &[u8]| content.windows(15).any(|part| part == b"\"schemaVersion\"");
                if fs::read(blob.join(from)).is_ok_and(|content| !is_manifest(&content)) {
                    fs::rename(blob.join(from), blob.join(to)).unwrap();
                }
            }
        }
    }

    /// Ends it; who asks gets no answer.
    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// On threads of their own: tests wait for the command line without letting anything else run.
fn serve(listener: &TcpListener, port: u16, sent: &Arc<AtomicU64>) {
    for client in listener.incoming() {
        let (Ok(client), Ok(registry)) = (client, TcpStream::connect(("127.0.0.1", port))) else { continue };
        let (client_in, registry_in) = (client.try_clone().unwrap(), registry.try_clone().unwrap());
        thread::spawn(move || relay(client_in, registry_in, &AtomicU64::new(0)));
        let sent = Arc::clone(sent);
        thread::spawn(move || relay(registry, client, &sent));
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(read) if read > 0 && to.write_all(&buffer[..read]).is_ok() => {
                count.fetch_add(read as u64, Ordering::Relaxed);
            }
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
