//! What the tests stand on: a broker of one's own, a client of raw bytes, certificates, temporary directories, counters.

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod packet;
pub(crate) mod program;
pub(crate) mod websocket;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use broker::Broker;
pub(crate) use client::{Client, Subscriber as _};
pub(crate) use packet::{
    Connect, DISCONNECT, Kind, PINGREQ, PINGRESP, Packet, Property, Publish, V5, V31, V311,
    Version, ack, hex, subscribe, unhex, unsubscribe,
};

/// How long a test waits for what must happen. Far beyond what it takes: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test for MQTT 3.1.1 and for MQTT 5.0.
pub(crate) fn both_versions(test: impl Fn(Version)) {
    for version in [V311, V5] {
        test(version);
    }
}

/// A number that no other test of this run gets: for names of clients, topics, files.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory that goes away with the value.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let name = format!("hbmqtt-it-{}-{}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path as text.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks until `check` gives a value, for at most [`PATIENCE`]. For states that nothing announces, such as a count of
/// threads; where an event can be awaited, await it.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(value) => return value,
            Err(found) => {
                assert!(Instant::now() < deadline, "{what}: {found}");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}

/// Says on standard error, past the capture of the test runner, that a test or a part of it is left out, and why.
pub(crate) fn left_out(what: &str, why: &str) {
    _ = writeln!(std::io::stderr(), "left out: {what}: {why}");
}
