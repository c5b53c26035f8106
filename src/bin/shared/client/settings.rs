//! The settings of a client program: command line, then environment, then file, then built-in.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hbmqtt::client::ClientConfig;
use hbmqtt::yaml::Document;
use log::warn;

use super::ConnectionArgs;
use crate::shared::exit::Failure;
use crate::shared::prompt;

/// Variables of the environment. Empty ones count as absent.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) url: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) config: Option<String>,
}

impl Environment {
    /// Reads the process's environment.
    pub(crate) fn read() -> Self {
        let get = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            url: get("HBMQTT_URL"),
            username: get("HBMQTT_USERNAME"),
            password: get("HBMQTT_PASSWORD"),
            config: get("HBMQTT_CONFIG"),
        }
    }
}

/// Reads the settings file: `-c`, else `HBMQTT_CONFIG`, else `NAME.yaml` in the user's configuration directory if it
/// exists, else none.
///
/// What a named file leaves open has the library's default; what the user's own leaves open, the tools'.
///
/// # Errors
/// It cannot be read, or has errors: all of them, with their lines.
pub(crate) fn load(
    args: &ConnectionArgs,
    environment: &Environment,
    name: &str,
) -> Result<ClientConfig, Failure> {
    if let Some(path) = args.config.as_ref().or(environment.config.as_ref()) {
        return read(Path::new(path));
    }
    match user_file(&format!("hbmqtt/{name}.yaml")) {
        Some(path) if path.exists() => {
            let mut config = read(&path)?;
            if !names_auto_reconnect(&path) {
                config.auto_reconnect = false;
            }
            Ok(config)
        }
        _ => Ok(ClientConfig::for_tools()),
    }
}

fn read(path: &Path) -> Result<ClientConfig, Failure> {
    let config = ClientConfig::load(path).map_err(|error| Failure::failed(error.to_string()))?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    Ok(config)
}

fn names_auto_reconnect(path: &Path) -> bool {
    let document = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| Document::parse(text).ok());
    document.is_some_and(|document| document.root().get("auto_reconnect").is_some())
}

/// mosquitto's defaults file of this program: one option a line. `None` if there is none.
pub(crate) fn mosquitto_defaults(program: &str) -> Option<String> {
    std::fs::read_to_string(user_file(program)?).ok()
}

/// A file in the user's configuration directory.
fn user_file(name: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| value != OsStr::new(""));
    let directory = match set("XDG_CONFIG_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(directory.join(name))
}

/// The password of `--password` or `--password-file`; `-` as the password asks for it.
///
/// # Errors
/// The file cannot be read; both were given; there is nobody to ask.
pub(crate) fn password(args: &ConnectionArgs) -> Result<Option<Vec<u8>>, Failure> {
    match (&args.password, &args.password_file) {
        (Some(_), Some(_)) => Err(Failure::usage("use one of --password and --password-file")),
        (Some(password), None) if password == "-" => {
            prompt::password("Password: ").map(|password| Some(password.into_bytes()))
        }
        (Some(password), None) => Ok(Some(password.clone().into_bytes())),
        (None, Some(path)) => password_in_file(path).map(Some),
        (None, None) => Ok(None),
    }
}

fn password_in_file(path: &str) -> Result<Vec<u8>, Failure> {
    let contents = std::fs::read(path)
        .map_err(|error| Failure::failed(format!("password file {path}: {error}")))?;
    let first = contents.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    Ok(first.strip_suffix(b"\r").unwrap_or(first).to_vec())
}
