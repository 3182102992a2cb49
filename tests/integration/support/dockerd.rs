//! A Docker engine of a test's own: everything of it is in a temporary folder, its containers use the host's network.
//! It can be stopped, killed and started again on the same folder, and leaves nothing behind.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the engine may take to answer on a machine that is busy with other tests.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to stop; it waits for what it is doing.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Makes an authority, and a certificate of it for the engine and one for its clients.
const CERTIFICATES: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca-key.pem -out ca.pem -subj /CN=authority
sign() {
  openssl req -newkey rsa:2048 -nodes -keyout $1 -out request.pem -subj /CN=$3
  echo $4 >extensions
  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile extensions -out $2
}
sign server-key.pem server-cert.pem 127.0.0.1 subjectAltName=IP:127.0.0.1
sign key.pem cert.pem client extendedKeyUsage=clientAuth
";

/// See the module.
pub(crate) struct Dockerd {
    folder: PathBuf,
    daemon: Option<Child>,
    /// Further arguments of the daemon.
    more: Vec<String>,
    /// A process of its own, as on every host: the engine may die without it.
    containerd: Child,
    janitor: Janitor,
}

impl Dockerd {
    /// Starts an engine that has nothing yet.
    pub(crate) async fn start() -> Self {
        let mut dockerd = Self::folder();
        dockerd.start_again().await;
        dockerd
    }

    /// Starts an engine that has nothing yet, on a disk of so many MiB.
    pub(crate) async fn start_with_disk(mib: u32) -> Self {
        let mut dockerd = Self::folder();
        fs::create_dir(dockerd.data_root()).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(dockerd.data_root());
        assert!(mount.status().unwrap().success(), "a disk of a test needs root");
        dockerd.start_again().await;
        dockerd
    }

    /// Starts an engine that also listens at an address with TLS; the address, and the folder of a client's certificate.
    pub(crate) async fn start_with_tls() -> (Self, String, PathBuf) {
        let mut dockerd = Self::folder();
        let tls = dockerd.folder.join("tls");
        fs::create_dir(&tls).unwrap();
        let made = Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(&tls).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("tcp://127.0.0.1:{port}");
        dockerd.more = vec!["--host".to_owned(), address.clone(), "--tlsverify".to_owned()];
        for (option, file) in
            [("--tlscacert", "ca.pem"), ("--tlscert", "server-cert.pem"), ("--tlskey", "server-key.pem")]
        {
            dockerd.more.extend([option.to_owned(), tls.join(file).display().to_string()]);
        }
        dockerd.start_again().await;
        (dockerd, address, tls)
    }

    fn folder() -> Self {
        // Sockets lie in it: the path must stay short.
        let folder = tempfile::Builder::new().prefix("meeboter-dockerd-").tempdir_in("/tmp").unwrap().keep();
        fs::write(folder.join("daemon.json"), "{}").unwrap();
        let janitor = Janitor::watch(&folder);
        let containerd = containerd(&folder);
        Self { folder, daemon: None, more: vec![], containerd, janitor }
    }

    /// Where images and containers are kept.
    pub(crate) fn data_root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Starts the engine on what it had; containers that ran on without it are its own again.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs already");
        assert!(rustix::process::getuid().is_root(), "a Docker engine of a test needs root");
        self.daemon = Some(self.command().spawn().expect("dockerd, of Debian's package docker.io"));
        let deadline = Instant::now() + START_DEADLINE;
        while !self.answers() {
            if let Some(status) = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().unwrap()) {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "dockerd does not answer:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(self.data_root());
        command.arg("--exec-root").arg(self.folder.join("exec"));
        command.arg("--pidfile").arg(self.folder.join("pid"));
        command.arg("--containerd").arg(self.folder.join("containerd.sock"));
        command.args(["--host", &self.host()]);
        // Containers of a test need no network of their own, and the machine's rules stay as they are.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        // Containers run on while the engine is away, as on hosts that are upgraded with care.
        command.arg("--live-restore");
        // Debian's init script of the machine's own engine has no say here.
        command.arg("--config-file").arg(self.folder.join("daemon.json"));
        command.args(&self.more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Whether the engine takes requests; a socket that is there need not have anybody behind it.
    fn answers(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok()
            && self
                .docker()
                .args(["version", "--format", "{{.Server.Version}}"])
                .output()
                .unwrap()
                .status
                .success()
    }

    /// Stops the engine politely; its containers run on.
    pub(crate) async fn stop(&mut self) {
        self.end(Signal::TERM).await;
    }

    /// Ends the engine without a word, as a crash does; its containers run on.
    pub(crate) async fn kill(&mut self) {
        self.end(Signal::KILL).await;
        // A new one finds no pid of a process that is gone.
        let _ = fs::remove_file(self.folder.join("pid"));
    }

    async fn end(&mut self, how: Signal) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        kill_process(Pid::from_child(&daemon), how).unwrap();
        let deadline = Instant::now() + STOP_DEADLINE;
        while daemon.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "dockerd does not end:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where the engine listens, as `DOCKER_HOST` says it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("dockerd.log")
    }

    /// Everything the engine has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Docker's command line for this engine.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.folder.join("config"));
        command.stdin(Stdio::null());
        command
    }

    /// Has Docker's command line do something, and returns what it printed, without the last line's end.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.docker().args(arguments).output().expect("docker, of Debian's package docker.io");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {}: {errors}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

fn containerd(folder: &Path) -> Child {
    let log = fs::File::create(folder.join("containerd.log")).unwrap();
    let config = folder.join("containerd.toml");
    fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n").unwrap();
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config).arg("--address").arg(folder.join("containerd.sock"));
    command.arg("--root").arg(folder.join("containerd")).arg("--state").arg(folder.join("exec/containerd"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("containerd, of Debian's package of that name")
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // The janitor ends them; whoever started them takes note.
        drop(self.janitor.0.stdin.take());
        let _ = self.janitor.0.wait();
        for child in self.daemon.iter_mut().chain([&mut self.containerd]) {
            let _ = child.wait();
        }
    }
}

/// Ends an engine and everything of it and removes its folder, when dropped or when this process is gone, however it
/// went.
struct Janitor(Child);

impl Janitor {
    fn watch(folder: &Path) -> Self {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", include_str!("dockerd_janitor.sh")]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a shell"))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
