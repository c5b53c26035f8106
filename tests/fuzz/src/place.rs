//! Where the fuzzer's broker listens, and its settings.

use std::path::PathBuf;

use hbmqtt::scram::Credentials;

use crate::random::Random;

/// `max-sessions`.
pub(crate) const MOST_SESSIONS: usize = 30;
/// `max-subscriptions-per-session`.
pub(crate) const MOST_SUBSCRIPTIONS: usize = 10;
/// `max-retained-messages`; those of `$SYS` do not count.
pub(crate) const MOST_RETAINED: usize = 10;
/// More than `$SYS` has.
pub(crate) const SYS_TOPICS: usize = 200;
/// `max-queued-messages`.
pub(crate) const MOST_QUEUED: usize = 20;
/// `max-inflight-messages`.
pub(crate) const IN_FLIGHT: usize = 8;

/// Where the broker listens and its files are; removed at the end.
pub(crate) struct Place {
    directory: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let name = format!("hbmqtt-fuzz-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory for temporary files");
        let credentials = Credentials::new(b"secret", 4096).expect("a usual password");
        std::fs::write(directory.join("scram"), format!("alice:{credentials}\n"))
            .expect("a temporary file");
        Self {
            socket: directory.join("socket"),
            directory,
        }
    }

    /// Settings with tight limits, one way or another.
    pub(crate) fn settings(&self, random: &mut Random) -> String {
        let directory = self.directory.display();
        let socket = self.socket.display();
        let mut lines = vec![
            format!(
                "listeners: {{default: {{type: unix, bind: '{socket}', max-topic-alias: {}{}}}}}",
                random.choose(&[0, 1, 3, 16]),
                random.choose(&["", "", ", mount-point: 'm/'"])
            ),
            format!("auth: {{scram-file: '{directory}/scram'}}"),
            format!("sys_interval: {}", random.choose(&[0, 1])),
            format!("max-qos: {}", random.choose(&[2, 2, 2, 1])),
            format!(
                "retain-available: {}",
                random.choose(&["on", "on", "on", "off"])
            ),
            format!(
                "upgrade-outgoing-qos: {}",
                random.choose(&["off", "off", "on"])
            ),
            format!("queue-qos0-messages: {}", random.choose(&["off", "on"])),
            format!(
                "queue-full: {}",
                random.choose(&["drop-oldest", "drop-new", "reject"])
            ),
            format!(
                "shared-subscription-strategy: {}",
                random.choose(&["round-robin", "random", "least-inflight", "sticky", "hash"])
            ),
            format!(
                "persistence: {{session-expiry: {}}}",
                random.choose(&["1s", "14d"])
            ),
            format!(
                "limits: {{max-sessions: {MOST_SESSIONS}, max-subscriptions-per-session: {MOST_SUBSCRIPTIONS}, \
                 max-retained-messages: {MOST_RETAINED}, max-retained-bytes: 64KiB, \
                 max-queued-messages: {MOST_QUEUED}, max-queued-bytes: 64KiB, \
                 max-inflight-messages: {IN_FLIGHT}, receive-maximum: {}, max-packet-size: 8KiB, \
                 max-connect-packet-size: 4KiB, max-properties: {}, max-outbox-bytes: 32KiB, max-memory: 0, \
                 max-topic-levels: {}, max-keepalive: {}, max-login-delay: 0}}",
                random.choose(&[1, 2, 8]),
                random.choose(&[14, 256]),
                random.choose(&[2, 200]),
                random.choose(&[0, 0, 0, 60]),
            ),
        ];
        if random.once_in(3) {
            lines.push(
                "topic-check: {enabled: on, taboo-topics: ['denied/#'], plugins: [topic_taboo]}"
                    .to_owned(),
            );
        }
        if random.once_in(4) {
            lines.push("plugins: [event_logger_plugin, packet_logger_plugin, auth_anonymous, auth_scram, broker_sys, topic_taboo]".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
