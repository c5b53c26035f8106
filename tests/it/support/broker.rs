//! A broker of one's own for each test: the program `hbmqtt` on ports that the system chooses, with its log and counters
//! in view. It dies with the value.
//!
//! With `HBMQTT_TEST_BROKER=mosquitto` in the environment the tests that need no configuration run against a mosquitto:
//! to check the tests themselves.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{PATIENCE, TempDir, eventually};

/// The listener of most tests.
pub(crate) const LISTENERS: &str = "listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:0\n";

#[derive(Debug)]
pub(crate) struct Broker {
    process: Child,
    log: Arc<Log>,
    address: Option<SocketAddr>,
    _directory: TempDir,
}

impl Broker {
    /// A broker with the default settings on a port of its own.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// A broker with one plain TCP listener and these further settings.
    pub(crate) fn with(settings: &str) -> Self {
        if runs_mosquitto() {
            assert!(settings.is_empty(), "settings are for hbmqtt alone");
            return Self::mosquitto("allow_anonymous true\n", "");
        }
        Self::configured(&format!("{LISTENERS}{settings}"))
    }

    /// A broker with exactly this configuration file.
    pub(crate) fn configured(yaml: &str) -> Self {
        let directory = TempDir::new();
        let config = directory.file("broker.yaml", yaml);
        let mut broker = Self::spawn(&["-c", &config], directory);
        broker.wait_for_listeners(yaml.matches("bind").count());
        broker
    }

    /// Waits until this many listeners are bound.
    pub(crate) fn wait_for_listeners(&mut self, count: usize) {
        self.log.wait_until("every listener's start line", |lines| {
            lines
                .iter()
                .filter(|line| line.contains("' bind to "))
                .count()
                >= count
        });
        self.address = self.bound("default").or_else(|| self.first_bound());
    }

    /// The program with these arguments; not waited for.
    pub(crate) fn spawn(arguments: &[&str], directory: TempDir) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbmqtt"));
        command.args(arguments);
        Self::run(command, directory)
    }

    fn run(mut command: Command, directory: TempDir) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker program starts");
        let log = Log::follow(process.stderr.take().unwrap());
        Self {
            process,
            log,
            address: None,
            _directory: directory,
        }
    }

    /// A real mosquitto with these lines beside a listener of its own (after `listener PORT ADDRESS`).
    pub(crate) fn mosquitto(settings: &str, listener: &str) -> Self {
        let directory = TempDir::new();
        // Mosquitto cannot choose a port and say which, so one is chosen for it.
        let port = free_port();
        let config = directory.file(
            "mosquitto.conf",
            format!("listener {port} 127.0.0.1\n{listener}\n{settings}\nlog_type all\n"),
        );
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or("mosquitto");
        let mut command = Command::new(program);
        command.args(["-c", &config]);
        let mut broker = Self::run(command, directory);
        broker.log.wait_for("mosquitto running", |line| {
            line.contains(" running") || line.contains("Error")
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // A WebSocket listener opens only after that line.
        eventually("mosquitto listens", || {
            TcpStream::connect(address).map_err(|error| error.to_string())
        });
        broker.address = Some(address);
        broker
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
            .unwrap_or_else(|| panic!("no address in the log:\n{}", self.log.text()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    /// The address of the listener with this name.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        self.bound(listener)
            .unwrap_or_else(|| panic!("no listener {listener} in the log:\n{}", self.log.text()))
    }

    fn bound(&self, listener: &str) -> Option<SocketAddr> {
        let start = format!("Listener '{listener}' bind to ");
        self.log
            .lines()
            .iter()
            .find_map(|line| bound_address(line.split_once(&start)?.1))
    }

    fn first_bound(&self) -> Option<SocketAddr> {
        self.log
            .lines()
            .iter()
            .find_map(|line| bound_address(line.split_once("' bind to ")?.1))
    }

    /// Waits for a line of the log.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text, |line| line.contains(text))
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lines()
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.text()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Sends a signal by its name, as `kill -NAME`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits until the program has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = eventually("the broker ends", || {
            self.process
                .try_wait()
                .unwrap()
                .ok_or_else(|| self.log.text())
        });
        self.log.wait_for_end();
        status
    }

    /// Ends the program as an operator would.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Threads (but for idle ones, kept for the next connection), open files and resident memory of the process now.
    pub(crate) fn resources(&self) -> Resources {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| {
                rest.trim()
                    .trim_end_matches(" kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .expect("VmRSS in /proc/PID/status");
        Resources {
            threads: self.threads().iter().filter(|name| *name != "idle").count(),
            files: files.count(),
            resident_bytes: kilobytes * 1024,
        }
    }

    /// The names of all threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(format!("/proc/{}/task", self.pid()))
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        if std::thread::panicking() {
            // Captured by the test runner and shown with the failure.
            println!("log of the broker:\n{}", self.log.text());
        }
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) threads: usize,
    pub(crate) files: usize,
    pub(crate) resident_bytes: u64,
}

pub(crate) fn runs_mosquitto() -> bool {
    std::env::var("HBMQTT_TEST_BROKER").is_ok_and(|value| value == "mosquitto")
}

/// A TCP port of the loopback interface that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// What a process writes line by line, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

impl Log {
    pub(crate) fn follow(stream: impl std::io::Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches(['\n', '\r'])
                    .to_owned();
                writer.lock().0.push(text);
                writer.news.notify_all();
                line.clear();
            }
            writer.lock().1 = true;
            writer.news.notify_all();
        });
        log
    }

    pub(crate) fn wait_for(&self, what: &str, accept: impl Fn(&str) -> bool) -> String {
        let mut found = String::new();
        self.wait_until(what, |lines| {
            let line = lines.iter().find(|line| accept(line));
            found = line.cloned().unwrap_or_default();
            line.is_some()
        });
        found
    }

    fn wait_until(&self, what: &str, mut accept: impl FnMut(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lock();
        while !accept(&lines.0) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !lines.1,
                "no {what:?} in:\n{}",
                lines.0.join("\n")
            );
            lines = self
                .news
                .wait_timeout(lines, left.min(Duration::from_secs(1)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the stream has ended.
    pub(crate) fn wait_for_end(&self) {
        let mut lines = self.lock();
        while !lines.1 {
            lines = self
                .news
                .wait(lines)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A failed test still shows the log.
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }
}

fn bound_address(rest: &str) -> Option<SocketAddr> {
    rest.split_whitespace().next()?.parse().ok()
}
