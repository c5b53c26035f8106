//! Why a broker does not start, stop or do what it was asked.

use std::fmt;
use std::time::Duration;

use super::config::ConfigError;
use crate::net::error::NetError;
use crate::store::StoreError;

/// Why a broker does not start or stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerError {
    /// The settings, or a file that they name, are wrong.
    Config(Box<ConfigError>),
    /// A listener cannot be opened, or its certificates cannot be used.
    Listener {
        /// Its name.
        name: String,
        /// Why not.
        error: Box<NetError>,
    },
    /// The store cannot be opened or read.
    Store(StoreError),
    /// The system gives no more threads.
    Thread(std::io::Error),
    /// The broker has started already, or is doing so.
    AlreadyStarted,
    /// The broker is not running.
    NotRunning,
    /// Something did not end in time; the rest of it ends by itself.
    ShutdownTimeout(Duration),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listener { name, error } => write!(f, "listener '{name}': {error}"),
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Self::AlreadyStarted => f.write_str("the broker has already been started"),
            Self::NotRunning => f.write_str("the broker is not running"),
            Self::ShutdownTimeout(limit) => {
                write!(
                    f,
                    "the broker did not stop within {:.1} s",
                    limit.as_secs_f64()
                )
            }
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error.as_ref()),
            Self::Listener { error, .. } => Some(error.as_ref()),
            Self::Store(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::AlreadyStarted | Self::NotRunning | Self::ShutdownTimeout(_) => None,
        }
    }
}

impl From<ConfigError> for BrokerError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}
