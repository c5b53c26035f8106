//! The broker's process: started on a port of the system's choice, killed, ended, looked at.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{cpu_us, memory_kib, now, pause};
use crate::fault::Fault;

/// A directory that is removed when it is dropped, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) keeps: bool,
}

impl Directory {
    /// A new one below the system's directory for such things, or below `HBMQTT_CRASH_DIR`.
    pub(crate) fn new() -> io::Result<Self> {
        let base = env::var_os("HBMQTT_CRASH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        for number in 0..1000 {
            let path = base.join(format!("hbmqtt-crash-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self { path, keeps: false }),
            }
        }
        Err(io::Error::other("no free name for a directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.keeps {
            println!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How our program is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    /// The text of `durability`; `None`: no section `persistence` at all.
    pub(crate) durability: Option<String>,
    pub(crate) store: PathBuf,
    /// Further lines of the settings.
    pub(crate) more: String,
    /// The largest file that it may write, in KiB, as a soft limit.
    pub(crate) file_size_kib: Option<u64>,
}

impl Setup {
    pub(crate) fn new(program: &Path, directory: &Path) -> Self {
        Self {
            program: program.into(),
            durability: Some("group".to_owned()),
            store: directory.join("store"),
            more: UNLIMITED.to_owned(),
            file_size_kib: None,
        }
    }

    fn settings(&self) -> String {
        let store = self.store.display();
        let persistence = match &self.durability {
            Some(durability) => {
                format!("persistence: {{path: '{store}', durability: {durability}}}\n")
            }
            None => String::new(),
        };
        format!(
            "listeners: {{default: {{type: tcp, bind: '127.0.0.1:0'}}}}\nauth: {{allow-anonymous: true}}\n\
             sys_interval: 1\n{persistence}{}",
            self.more
        )
    }

    /// What the store takes on disk, in bytes.
    pub(crate) fn store_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.store) else {
            return 0;
        };
        let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok());
        sizes.map(|metadata| metadata.len()).sum()
    }
}

/// So that nothing is dropped that a session has to get.
pub(crate) const UNLIMITED: &str = "limits: {max-queued-messages: 0, max-queued-bytes: 0}\n";

/// A started broker. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
    /// From the start of the process until it listened.
    pub(crate) started_in: Duration,
}

impl Broker {
    /// Starts our program in `directory`, and returns when it listens.
    ///
    /// # Errors
    /// [`Fault::Wrong`] with its log if it ends instead.
    pub(crate) fn start(setup: &Setup, directory: &Path) -> Result<Self, Fault> {
        let mut broker = Self::launch(setup, directory)?;
        broker.wait_until_it_listens()?;
        Ok(broker)
    }

    /// As [`start`](Self::start), but does not wait for anything.
    pub(crate) fn launch(setup: &Setup, directory: &Path) -> Result<Self, Fault> {
        let config = directory.join("broker.yaml");
        fs::write(&config, setup.settings())?;
        let mut command = match setup.file_size_kib {
            None => Command::new(&setup.program),
            // XFSZ ignored: the write that goes beyond fails instead.
            Some(kib) => {
                let mut shell = Command::new("bash");
                let script = format!("ulimit -S -f {kib}; trap '' XFSZ; exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(&setup.program);
                shell
            }
        };
        command.arg("-c").arg(&config);
        let (child, log) = spawn(command, directory)?;
        Ok(Self {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            started_in: Duration::ZERO,
        })
    }

    /// Starts another program that listens on `address`, given in its arguments or settings.
    pub(crate) fn start_other(
        mut command: Command,
        address: SocketAddr,
        directory: &Path,
    ) -> Result<Self, Fault> {
        command.current_dir(directory);
        let (child, log) = spawn(command, directory)?;
        let mut broker = Self {
            child,
            log,
            address,
            started_in: Duration::ZERO,
        };
        let began = now();
        while std::net::TcpStream::connect(address).is_err() {
            broker.fail_if_ended(began.elapsed())?;
            pause(Duration::from_millis(5));
        }
        Ok(broker)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Fault> {
        let began = now();
        loop {
            if let Some(address) = find_address(&self.log()) {
                self.address = address;
                self.started_in = began.elapsed();
                return Ok(());
            }
            self.fail_if_ended(began.elapsed())?;
            pause(Duration::from_millis(2));
        }
    }

    fn fail_if_ended(&mut self, waited: Duration) -> Result<(), Fault> {
        let ended = self.child.try_wait()?;
        if ended.is_none() && waited < START_PATIENCE {
            return Ok(());
        }
        let status = ended.map_or("it does not listen".to_owned(), |status| status.to_string());
        Err(Fault::Wrong(format!(
            "the broker does not start ({status}): {}",
            self.log_tail()
        )))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cpu_us(&self) -> io::Result<f64> {
        cpu_us(self.pid())
    }

    /// Resident memory at its highest, in KiB.
    pub(crate) fn peak_rss_kib(&self) -> io::Result<u64> {
        memory_kib(self.pid(), "VmHWM")
    }

    /// What it logged since it was started.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// [`Fault::Wrong`] with its log if it had ended by itself before.
    pub(crate) fn kill(&mut self) -> Result<(), Fault> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.was_killed(status)
    }

    /// A broker that was killed did not end otherwise.
    pub(crate) fn was_killed(&self, status: ExitStatus) -> Result<(), Fault> {
        if status.signal() == Some(Signal::KILL.as_raw()) {
            return Ok(());
        }
        Err(Fault::Wrong(format!(
            "the broker ended by itself ({status}): {}",
            self.log_tail()
        )))
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, Fault> {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        self.wait(START_PATIENCE)
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self, within: Duration) -> Result<ExitStatus, Fault> {
        let began = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > within {
                self.kill()?;
                return Err(Fault::Wrong(format!(
                    "the broker does not end: {}",
                    self.log_tail()
                )));
            }
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command, directory: &Path) -> io::Result<(Child, PathBuf)> {
    // One for each process, so that a line of an earlier one is not taken for this one's.
    let mut number = 0;
    let log = loop {
        let log = directory.join(format!("log-{number}"));
        if !log.exists() {
            break log;
        }
        number += 1;
    };
    let file = fs::File::create(&log)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    Ok((child, log))
}

/// The address in the line that says where it listens, if the line is whole.
fn find_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(" bind to ")?;
    let (address, _) = rest.split_once(' ')?;
    address.parse().ok()
}

/// A large store may take its time.
const START_PATIENCE: Duration = Duration::from_secs(120);
