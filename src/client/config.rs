//! The client's settings file, as HBMQTT's and amqtt's clients read it. Every key is known here, and an unknown one is an
//! error. What the keys mean: `docs/config.md`.

mod read;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proto::{ProtocolVersion, QoS, TopicName};
use crate::yaml::{ConfigError, Document, Findings, Problem};

use read::{HOMES, read};

/// What a settings file says. The defaults are the library's; the command-line tools start from
/// [`ClientConfig::for_tools`] when they are given no file.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// Key `uri`, also in the sections `broker` and `connection`: where to connect to.
    pub uri: Option<String>,
    /// Key `cafile`, there too: a PEM file with certificates of authorities to trust.
    pub cafile: Option<PathBuf>,
    /// Key `capath`, there too: a directory of such files.
    pub capath: Option<PathBuf>,
    /// Key `cadata`, there too: such certificates as PEM text.
    pub cadata: Option<String>,
    /// Key `certfile`, there too: the client's certificate, PEM. Comes with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// Key `keyfile`, there too: its private key, PEM. Comes with `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Key `check_hostname`, there too: the server's certificate must be for the host that was dialled; on.
    pub check_hostname: bool,
    /// Key `verify_cert`, there too: the server's certificate must be signed by a trusted authority; on. Can be off only
    /// if `check_hostname` is.
    pub verify_cert: bool,
    /// Key `cleansession`, there too: begin with an empty session; `None` = the caller's choice, else yes.
    pub cleansession: Option<bool>,
    /// Key `store`: a file that keeps what is on its way; `None` = nothing outlives the program.
    pub store: Option<PathBuf>,
    /// Key `connection_timeout`: how long connecting may take; `None` = the client's default.
    pub connection_timeout: Option<Duration>,
    /// Key `protocol`: the version to speak; `None` = the client's default.
    pub protocol: Option<ProtocolVersion>,
    /// Key `keep_alive`: seconds, 10; 0 = off.
    pub keep_alive: u16,
    /// Key `ping_delay`: seconds before the end of the Keep Alive at which to ping, 1; 0 = no pings.
    pub ping_delay: u16,
    /// Key `default_qos`: the QoS of publications that name none; QoS 0.
    pub default_qos: QoS,
    /// Key `default_retain`: the RETAIN flag of publications that name none; off.
    pub default_retain: bool,
    /// Key `topics`: the same for single topics.
    pub topics: Vec<(TopicName, TopicConfig)>,
    /// Key `auto_reconnect`: connect again when the connection is lost; on.
    pub auto_reconnect: bool,
    /// Key `reconnect_retries`: attempts after the first one failed, 2; `None` = without end (any negative number).
    pub reconnect_retries: Option<u32>,
    /// Key `reconnect_max_interval`: the longest wait between two attempts, 10 s.
    pub reconnect_max_interval: Duration,
    /// Section `will`.
    pub will: Option<WillConfig>,
    /// Key `plugins`: log each packet at debug level; on unless a list of plugins leaves it out.
    pub packet_logger: bool,
    /// What is odd about the file but does not stop the client; to be logged once.
    pub warnings: Vec<Problem>,
}

/// What `topics` says about one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicConfig {
    /// Key `qos`; `None` = as elsewhere.
    pub qos: Option<QoS>,
    /// Key `retain`; `None` = as elsewhere.
    pub retain: Option<bool>,
}

/// Section `will`: what the server publishes when the connection ends without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillConfig {
    /// Key `topic`; the only one that is needed.
    pub topic: TopicName,
    /// Key `message`; empty.
    pub message: String,
    /// Key `qos`; QoS 0.
    pub qos: QoS,
    /// Key `retain`; off.
    pub retain: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            uri: None,
            cafile: None,
            capath: None,
            cadata: None,
            certfile: None,
            keyfile: None,
            check_hostname: true,
            verify_cert: true,
            cleansession: None,
            store: None,
            connection_timeout: None,
            protocol: None,
            keep_alive: 10,
            ping_delay: 1,
            default_qos: QoS::AtMostOnce,
            default_retain: false,
            topics: Vec::new(),
            auto_reconnect: true,
            reconnect_retries: Some(2),
            reconnect_max_interval: Duration::from_secs(10),
            will: None,
            packet_logger: true,
            warnings: Vec::new(),
        }
    }
}

impl ClientConfig {
    /// What the command-line tools use without a file: the default, but without reconnecting.
    #[must_use]
    pub fn for_tools() -> Self {
        Self {
            auto_reconnect: false,
            ..Self::default()
        }
    }

    /// Reads the settings from a YAML (or JSON) text. The files that it names are not opened.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text)?;
        let found = Findings::new(&document, HOMES);
        let mut config = read(&found);
        config.warnings = found.finish()?;
        Ok(config)
    }

    /// Reads the settings from a file. The files that it names are not opened.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or something in it is wrong.
    ///
    /// # Blocking
    /// Reads the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::read(path, error))?;
        let mut config = Self::parse(&text).map_err(|error| error.in_file(path))?;
        for warning in &mut config.warnings {
            warning.file = Some(path.to_owned());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
