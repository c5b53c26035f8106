//! Where to connect to: `--url`, or `--host` and its companions, or the environment.

use hbmqtt::net::url::{Address, Endpoint};

use super::ConnectionArgs;
use crate::shared::exit::Failure;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The URL as the client library takes it; it may hold a password.
    pub(crate) url: String,
    /// The same, checked; shows no password.
    pub(crate) endpoint: Endpoint,
}

impl Target {
    /// Checks a URL.
    ///
    /// # Errors
    /// A usage error that says what is wrong with it.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(url)
            .map_err(|error| Failure::usage(format!("the URL cannot be used: {error}")))?;
        Ok(Self {
            url: url.to_owned(),
            endpoint,
        })
    }

    /// What the options name; `None` if they name nothing. `url` is the URL of the environment.
    ///
    /// # Errors
    /// A usage error when they contradict each other or the URL is invalid.
    pub(crate) fn from_args(
        args: &ConnectionArgs,
        url: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let named = [&args.url, &args.host, &args.unix];
        if named.iter().filter(|option| option.is_some()).count() > 1 {
            return Err(Failure::usage("use one of --url, --host and --unix"));
        }
        if args.host.is_none() && (args.ws || args.ws_path.is_some() || args.no_tls) {
            return Err(Failure::usage(
                "--ws, --ws-path and --no-tls belong to --host; a URL says it by its scheme",
            ));
        }
        if let Some(host) = &args.host {
            return from_host(args, host).map(Some);
        }
        if args.port.is_some() {
            return Err(Failure::usage("--port belongs to --host"));
        }
        if let Some(path) = &args.unix {
            return Self::parse(&format!("unix://{}", encode_path(path))).map(Some);
        }
        match args.url.as_deref().or(url) {
            Some(url) => Self::parse(url).map(Some),
            None => Ok(None),
        }
    }

    /// The same without user name and password, which the library would send as they are.
    pub(crate) fn without_credentials(mut self) -> Self {
        if let Some((scheme, rest)) = self.url.split_once("://") {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            self.url = format!("{scheme}://{host}{path}");
        }
        self.endpoint.user = None;
        self.endpoint.password = None;
        self
    }

    /// The topic that a URL of mosquitto's kind carries in its path: `mqtt://host/a/b` names `a/b`.
    pub(crate) fn topic(&self) -> Option<String> {
        if self.endpoint.websocket || !matches!(self.endpoint.address, Address::Tcp { .. }) {
            return None;
        }
        let topic = self.endpoint.path.strip_prefix('/')?;
        (!topic.is_empty()).then(|| topic.to_owned())
    }
}

/// The URL that `--host`, `--port`, `--ws`, `--ws-path` and the TLS options stand for.
fn from_host(args: &ConnectionArgs, host: &str) -> Result<Target, Failure> {
    let certificates = args.ca_file.is_some()
        || args.ca_path.is_some()
        || args.ca_data.is_some()
        || args.cert.is_some()
        || args.tls_use_os_certs;
    let tls = !args.no_tls && (certificates || args.port == Some(8883));
    let scheme = match (args.ws, tls) {
        (false, false) => "mqtt",
        (false, true) => "mqtts",
        (true, false) => "ws",
        (true, true) => "wss",
    };
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let port = args
        .port
        .map_or_else(String::new, |port| format!(":{port}"));
    let path = match args.ws_path.as_deref() {
        Some(_) if !args.ws => return Err(Failure::usage("--ws-path belongs to --ws")),
        Some(path) if path.starts_with('/') => path.to_owned(),
        Some(path) => format!("/{path}"),
        None => String::new(),
    };
    if host.contains(['/', '@', '?', '#']) {
        return Err(Failure::usage(format!("'{host}' is no host name")));
    }
    Target::parse(&format!("{scheme}://{host}{port}{path}"))
}

/// What a URL would read as something else, percent-encoded.
fn encode_path(path: &str) -> String {
    path.replace('%', "%25")
        .replace('#', "%23")
        .replace('?', "%3F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_its_credentials_and_nothing_else() {
        for (url, bare) in [
            ("mqtt://me:p@w@host:1/a@b", "mqtt://host:1/a@b"),
            ("wss://me@[::1]?a@b", "wss://[::1]?a@b"),
            ("mqtt://host", "mqtt://host"),
        ] {
            let target = Target::parse(url).unwrap().without_credentials();
            assert_eq!(target.url, bare);
            assert_eq!(target.endpoint, Target::parse(bare).unwrap().endpoint);
        }
    }
}
