//! From the common options to a connected client.

use std::time::Duration;

use bytes::Bytes;
use hbmqtt::client::ClientConfig;
use hbmqtt::client::{Client, ClientError, ConnectOptions, TlsOptions, TopicDefaults, WillOptions};
use hbmqtt::net::url::Address;
use hbmqtt::proto::{ProtocolVersion, topic};
use log::{LevelFilter, error, info, warn};

use super::authentication;
use super::properties::Properties;
use super::settings::{self, Environment};
use super::target::Target;
use super::{ConnectionArgs, Manner, Program, outcome};
use crate::shared::exit::Failure;
use crate::shared::log as logging;
use crate::shared::signals;

/// How long an attempt to connect may take when nothing says otherwise: the library's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that is needed to connect, checked, and nothing connected yet.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: Target,
    /// How.
    pub(crate) options: ConnectOptions,
    /// The Client Identifier, as log lines name it.
    pub(crate) client_id: String,
    /// What `-D` said; CONNECT and the Will have theirs already.
    pub(crate) properties: Properties,
}

/// Reads the settings and checks them. Neither the connection nor an answer is waited for longer than `patience`.
/// `option5` is an option of the program's own that was given and that needs MQTT 5.0.
///
/// # Errors
/// Usage errors, and files that cannot be read. Nothing was sent to anybody.
pub(crate) fn plan(
    program: &Program,
    manner: Manner,
    args: &ConnectionArgs,
    patience: Option<Duration>,
    option5: Option<&str>,
) -> Result<Plan, Failure> {
    refuse_unsupported(args)?;
    let mut properties = Properties::parse(&args.property, program.commands)?;
    if let Some(seconds) = args.session_expiry {
        properties.add_session_expiry(seconds)?;
    }
    let environment = Environment::read();
    let mut config = match manner {
        Manner::Mosquitto if args.config.is_none() => ClientConfig::for_tools(),
        _ => settings::load(args, &environment, program.settings)?,
    };
    let mut target = target(manner, args, &environment, &config)?;
    let client_id = client_id(program, args)?;
    session(&mut config, manner, args)?;
    config.protocol = version(args, option5)?.or(config.protocol);
    expiry(&config, args, &properties)?;
    if let Some(patience) = patience {
        let usual = config.connection_timeout.unwrap_or(CONNECT_TIMEOUT);
        config.connection_timeout = Some(usual.min(patience));
    }
    tls(&mut config, args)?;
    let mut options = options(&config)
        .client_id(client_id.as_str())
        .tls(tls_options(&config, args));
    let version = config.protocol;
    options = credentials(options, args, &environment, &target, version, &properties)?;
    if authentication::is_scram(&properties) {
        target = target.without_credentials();
    }
    if let Some(will) = will(args, &properties)? {
        options = options.will(properties.will(will));
    }
    options = properties.connect(options);
    options = headers(options, args, &target);
    if let Some(patience) = patience {
        options = options.ack_timeout(patience);
    }
    if let Some(address) = args.bind {
        options = options.bind_address(address);
    }
    if let Some(proxy) = &args.proxy {
        if !matches!(target.endpoint.address, Address::Tcp { .. }) {
            return Err(Failure::usage("--proxy is for TCP, not for Unix sockets"));
        }
        options = options.proxy(proxy.clone());
    }
    Ok(Plan {
        target,
        options,
        client_id,
        properties,
    })
}

/// Starts the log on standard error as the options ask for it.
pub(crate) fn start_log(manner: Manner, args: &ConnectionArgs) {
    let usual = match manner {
        Manner::Hbmqtt => LevelFilter::Info,
        Manner::Mosquitto => LevelFilter::Warn,
    };
    let level = logging::verbosity(args.debug, args.quiet, usual);
    logging::start(
        level,
        args.log_format.unwrap_or_default(),
        std::io::stderr(),
    );
}

impl Plan {
    /// Connects.
    ///
    /// # Errors
    /// The connection cannot be made or was refused; that was logged. The status is the one to exit with.
    ///
    /// # Blocking
    /// Until CONNACK, or until the last attempt failed.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        info!("{} Connecting to broker", self.client_id);
        Client::connect(&self.target.url, self.options.clone()).map_err(|error| {
            let status = outcome::status(&error);
            if let ClientError::InvalidOption(invalid) = &error {
                return Failure {
                    status,
                    message: invalid.to_string(),
                };
            }
            error!(
                target: logging::CRITICAL,
                "connection to '{}' failed: {error}",
                self.target.endpoint
            );
            outcome::silent(status)
        })
    }
}

impl Plan {
    /// Sends DISCONNECT with its properties.
    pub(crate) fn disconnect(&self, client: &Client) {
        // Best effort: what was to be sent has been acknowledged, or has failed already.
        let _ = client.disconnect_with(self.properties.disconnect());
        info!("{} Disconnected from broker", self.client_id);
    }

    /// After SIGINT or SIGTERM the broker gets its DISCONNECT, and the program has `grace` to end.
    ///
    /// # Errors
    /// The system refuses the handlers or the thread.
    pub(crate) fn stop_at_signal(&self, client: &Client, grace: Duration) -> Result<(), Failure> {
        let client = client.clone();
        let client_id = self.client_id.clone();
        let goodbye = self.properties.disconnect();
        signals::on_stop(grace, move || {
            let _ = client.disconnect_with(goodbye);
            info!("{client_id} Disconnected from broker");
        })
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
    }
}

/// Options that other tools have and this one cannot honour.
fn refuse_unsupported(args: &ConnectionArgs) -> Result<(), Failure> {
    let refused = [
        ("psk", args.psk.is_some(), "rustls has no pre-shared keys"),
        (
            "psk-identity",
            args.psk_identity.is_some(),
            "rustls has no pre-shared keys",
        ),
        (
            "tls-engine",
            args.tls_engine.is_some(),
            "rustls has no engines",
        ),
        (
            "tls-engine-kpass-sha1",
            args.tls_engine_kpass_sha1.is_some(),
            "rustls has no engines",
        ),
        (
            "ciphers",
            args.ciphers.is_some(),
            "rustls offers its safe cipher suites only",
        ),
        (
            "key-password",
            args.key_password.is_some(),
            "rustls does not decrypt keys; decrypt the file with 'openssl pkey'",
        ),
        (
            "srv",
            args.srv,
            "SRV records are not looked up; name the broker itself",
        ),
        (
            "keyform",
            args.keyform.as_deref().is_some_and(|form| form != "pem"),
            "only pem is supported",
        ),
    ];
    match refused.iter().find(|(_, given, _)| *given) {
        Some((name, _, why)) => Err(Failure::usage(format!("option '--{name}': {why}"))),
        None => Ok(()),
    }
}

fn target(
    manner: Manner,
    args: &ConnectionArgs,
    environment: &Environment,
    config: &ClientConfig,
) -> Result<Target, Failure> {
    if let Some(target) = Target::from_args(args, environment.url.as_deref())? {
        return Ok(target);
    }
    match (&config.uri, manner) {
        (Some(uri), _) => Target::parse(uri),
        (None, Manner::Mosquitto) => Target::parse("mqtt://localhost"),
        (None, Manner::Hbmqtt) => Err(Failure::usage("option '--url' is missing")),
    }
}

/// `-i`, `-I` and the process id, or `PROGRAM/PID-HOST`.
fn client_id(program: &Program, args: &ConnectionArgs) -> Result<String, Failure> {
    let pid = std::process::id();
    match (&args.client_id, &args.id_prefix) {
        (Some(_), Some(_)) => Err(Failure::usage("use one of --client-id and --id-prefix")),
        (Some(id), None) => Ok(id.clone()),
        (None, Some(prefix)) => Ok(format!("{prefix}{pid}")),
        (None, None) => {
            let system = rustix::system::uname();
            let host = system.nodename().to_string_lossy();
            let mut id = format!("{}/{pid}-{host}", program.name);
            // MQTT 3.1 has no longer ones.
            if args.protocol_version == Some(ProtocolVersion::V31) {
                id.truncate(id.floor_char_boundary(23));
            }
            Ok(id)
        }
    }
}

/// Puts what the command line says about the session and the connection in the place of the file's.
fn session(
    config: &mut ClientConfig,
    manner: Manner,
    args: &ConnectionArgs,
) -> Result<(), Failure> {
    let clean = match (args.clean_session, args.no_clean_session) {
        (true, true) => {
            return Err(Failure::usage(
                "use one of --clean-session and --no-clean-session",
            ));
        }
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => config.cleansession,
    };
    // A session under a name of the user's own is wanted again; one under a made-up name only litters the broker.
    let usual = manner == Manner::Mosquitto || args.client_id.is_none();
    config.cleansession = Some(clean.unwrap_or(usual));
    if let Some(store) = &args.store {
        config.store = Some(store.into());
    }
    if config.store.is_some() && args.client_id.is_none() {
        return Err(Failure::usage(
            "a store needs --client-id, or the next run does not find what is on its way",
        ));
    }
    config.connection_timeout = args.connect_timeout.or(config.connection_timeout);
    if let Some(seconds) = args.keepalive {
        config.keep_alive = seconds;
        // The default delay of a second leaves no time to ping with a keep alive of one.
        if seconds == 1 && config.ping_delay == 1 {
            config.ping_delay = 0;
        }
    }
    if let Some(retries) = args.reconnect_retries {
        config.auto_reconnect = true;
        config.reconnect_retries = u32::try_from(retries).ok();
    }
    if let Some(seconds) = args.reconnect_max_interval {
        config.reconnect_max_interval = Duration::from_secs(seconds.into());
    }
    config.auto_reconnect &= !args.no_reconnect;
    Ok(())
}

/// The version that the options ask for: `-V`, or 5.0 for what only that has.
fn version(
    args: &ConnectionArgs,
    option5: Option<&str>,
) -> Result<Option<ProtocolVersion>, Failure> {
    let property = (!args.property.is_empty()).then_some("-D");
    let expiry = args.session_expiry.map(|_| "-x");
    let Some(option) = property.or(expiry).or(option5) else {
        return Ok(args.protocol_version);
    };
    match args.protocol_version {
        Some(version) if !version.has_properties() => Err(Failure::usage(format!(
            "option '{option}' needs MQTT 5.0, and -V says {version}"
        ))),
        _ => Ok(Some(ProtocolVersion::V5)),
    }
}

/// What cannot be meant about the time that the session is kept.
fn expiry(
    config: &ClientConfig,
    args: &ConnectionArgs,
    properties: &Properties,
) -> Result<(), Failure> {
    let expiry = properties.session_expiry();
    if expiry == Some(u32::MAX) && args.client_id.is_none() {
        return Err(Failure::usage(
            "a session that is kept for ever needs --client-id, or nobody finds it again",
        ));
    }
    let is_kept = match expiry {
        Some(seconds) => seconds > 0,
        None => config.cleansession == Some(false),
    };
    if !is_kept && properties.keeps_session_at_the_end() {
        return Err(Failure::usage(
            "option '-D disconnect session-expiry-interval': the session ends with the connection unless -x keeps it",
        ));
    }
    Ok(())
}

/// The settings as the library takes them.
fn options(config: &ClientConfig) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .clean_start(config.cleansession.unwrap_or(true))
        .keep_alive(Duration::from_secs(config.keep_alive.into()))
        .ping_delay(Duration::from_secs(config.ping_delay.into()))
        .default_qos(config.default_qos)
        .default_retain(config.default_retain)
        .auto_reconnect(config.auto_reconnect)
        .reconnect_retries(config.reconnect_retries)
        .reconnect_max_interval(config.reconnect_max_interval);
    if let Some(version) = config.protocol {
        options = options.version(version);
    }
    if let Some(store) = &config.store {
        options = options.store(store);
    }
    if let Some(timeout) = config.connection_timeout {
        options = options.connect_timeout(timeout);
    }
    for (topic, defaults) in &config.topics {
        let defaults = TopicDefaults {
            qos: defaults.qos,
            retain: defaults.retain,
        };
        options = options.topic_defaults(topic.as_str(), defaults);
    }
    match &config.will {
        Some(will) => options.will(
            WillOptions::new(will.topic.as_str())
                .payload(Bytes::from(will.message.clone()))
                .qos(will.qos)
                .retain(will.retain),
        ),
        None => options,
    }
}

/// User name and password, each from the command line (the URL is part of it), else from the environment.
fn credentials(
    options: ConnectOptions,
    args: &ConnectionArgs,
    environment: &Environment,
    target: &Target,
    version: Option<ProtocolVersion>,
    properties: &Properties,
) -> Result<ConnectOptions, Failure> {
    let endpoint = &target.endpoint;
    let user = args
        .username
        .clone()
        .or_else(|| endpoint.user.clone())
        .or_else(|| environment.username.clone());
    let password = settings::password(args)?
        .or_else(|| endpoint.password.clone())
        .or_else(|| environment.password.clone().map(String::into_bytes));
    let allows_password_alone =
        version.is_none_or(ProtocolVersion::allows_password_without_user_name);
    let password = if user.is_none() && password.is_some() && !allows_password_alone {
        warn!("The password is not sent: MQTT 3.1.1 has none without a user name");
        None
    } else {
        password
    };
    authentication::apply(options, properties, user, password)
}

/// The certificates of the command line; those whom to trust replace all that the file trusts.
fn tls(config: &mut ClientConfig, args: &ConnectionArgs) -> Result<(), Failure> {
    if args.cert.is_some() != args.key.is_some() {
        return Err(Failure::usage("--cert and --key belong together"));
    }
    if args.ca_file.is_some() || args.ca_path.is_some() || args.ca_data.is_some() {
        config.cafile = args.ca_file.as_ref().map(Into::into);
        config.capath = args.ca_path.as_ref().map(Into::into);
        config.cadata.clone_from(&args.ca_data);
    }
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        config.certfile = Some(cert.into());
        config.keyfile = Some(key.into());
    }
    Ok(())
}

fn tls_options(config: &ClientConfig, args: &ConnectionArgs) -> TlsOptions {
    TlsOptions {
        ca_file: config.cafile.clone(),
        ca_path: config.capath.clone(),
        ca_data: config.cadata.clone(),
        cert_file: config.certfile.clone(),
        key_file: config.keyfile.clone(),
        insecure_skip_host_name: args.insecure || !config.check_hostname,
        insecure_skip_verification: args.insecure_any_certificate || !config.verify_cert,
        system_roots: args.tls_use_os_certs,
        versions: args.tls_version.unwrap_or_default(),
        alpn: args.tls_alpn.clone(),
        key_log_file: args.tls_keylog.as_ref().map(Into::into),
    }
}

fn will(args: &ConnectionArgs, properties: &Properties) -> Result<Option<WillOptions>, Failure> {
    let Some(name) = &args.will_topic else {
        let others = args.will_message.is_some() || args.will_qos.is_some() || args.will_retain;
        if others || properties.has_will() {
            return Err(Failure::usage("the will options need --will-topic"));
        }
        return Ok(None);
    };
    topic::validate_name(name).map_err(|error| {
        Failure::usage(format!("will topic '{}': {error}", name.escape_debug()))
    })?;
    let message = args.will_message.clone().unwrap_or_default();
    Ok(Some(
        WillOptions::new(name.as_str())
            .payload(Bytes::from(message))
            .qos(args.will_qos.unwrap_or_default())
            .retain(args.will_retain),
    ))
}

fn headers(mut options: ConnectOptions, args: &ConnectionArgs, target: &Target) -> ConnectOptions {
    let headers = args.extra_headers.iter().flatten().chain(&args.ws_header);
    let mut any = false;
    for (name, value) in headers {
        options = options.extra_header(name.as_str(), value.as_str());
        any = true;
    }
    if any && !target.endpoint.websocket {
        warn!("The extra headers are not sent: the connection is no WebSocket");
    }
    options
}
