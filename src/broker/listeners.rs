//! The listeners: opening them, and accepting until they are stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::config::{self, ClientCert, Limits, ListenerConfig, ListenerKind};
use super::connection::{ListenerState, Services, serve};
use super::error::BrokerError;
use crate::net::error::NetError;
use crate::net::listener::Listener;
use crate::net::proxy_header::TrustedProxies;
use crate::net::tls::{CaSources, ClientCertificates, ServerTlsOptions, server_config};
use crate::net::transport::Acceptor;
use crate::net::websocket::WebSocketOptions;
use crate::thread;

/// A listener that is open.
pub(super) struct RunningListener {
    pub(super) state: Arc<ListenerState>,
    pub(super) listener: Arc<Listener>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) thread: JoinHandle<()>,
}

fn listener_error(name: &str) -> impl FnOnce(NetError) -> BrokerError {
    let name = name.to_owned();
    move |error| BrokerError::Listener {
        name,
        error: Box::new(error),
    }
}

pub(super) fn bind(
    config: &ListenerConfig,
    limits: &Limits,
) -> Result<(Listener, Acceptor, ListenerConfig), BrokerError> {
    let acceptor = acceptor(config, limits)?;
    let listener = Listener::bind(&bind_address(config)).map_err(listener_error(&config.name))?;
    Ok((listener, acceptor, config.clone()))
}

fn bind_address(config: &ListenerConfig) -> crate::net::listener::BindAddress {
    use crate::net::listener::BindAddress as Net;
    match &config.bind {
        config::BindAddress::Tcp { host, port } => Net::Tcp {
            host: Some(host.clone()),
            port: *port,
        },
        config::BindAddress::Unix(path) => Net::Unix(path.clone()),
        config::BindAddress::Mem(name) => Net::Mem(name.clone()),
    }
}

/// What a listener expects before MQTT: PROXY header, TLS, WebSocket.
pub(super) fn acceptor(config: &ListenerConfig, limits: &Limits) -> Result<Acceptor, BrokerError> {
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let options = ServerTlsOptions {
                certificate_file: tls.certfile.clone(),
                key_file: tls.keyfile.clone(),
                ca: CaSources {
                    file: tls.cafile.clone(),
                    path: tls.capath.clone(),
                    data: tls.cadata.clone(),
                },
                client_certificates: match tls.client_cert {
                    ClientCert::None => ClientCertificates::None,
                    ClientCert::Optional => ClientCertificates::Optional,
                    ClientCert::Required => ClientCertificates::Required,
                },
                revocation_file: tls.crlfile.clone(),
            };
            Some(server_config(&options).map_err(listener_error(&config.name))?)
        }
    };
    let websocket = (config.kind == ListenerKind::Ws).then(|| WebSocketOptions {
        max_message_bytes: limits.max_packet_size,
        allowed_origins: config.allowed_origins.clone(),
    });
    let ranges = config.proxy.clone();
    let proxy = (!ranges.is_empty()).then(|| -> TrustedProxies {
        Box::new(move |address| ranges.iter().any(|range| range.contains(address)))
    });
    Ok(Acceptor {
        tls,
        websocket,
        proxy,
    })
}

/// Loads certificate files that were replaced since the last look, as renewal programs do it without a signal. If that
/// fails, the listener keeps the certificate it has.
pub(super) fn renew_certificates(listeners: &[Arc<ListenerState>], limits: &Limits) {
    for state in listeners {
        let times = certificate_times(&state.config);
        if *state.certificate_times.lock() == times {
            continue;
        }
        *state.certificate_times.lock() = times;
        match acceptor(&state.config, limits) {
            Ok(acceptor) => {
                *state.acceptor.write() = Arc::new(acceptor);
                log::info!("Listener '{}': certificate files loaded again", state.name);
            }
            Err(error) => log::error!("{error}; the certificate in use stays"),
        }
    }
}

/// When each certificate file of a listener was changed.
fn certificate_times(config: &ListenerConfig) -> Vec<Option<SystemTime>> {
    let Some(tls) = &config.tls else {
        return Vec::new();
    };
    let files = [
        Some(&tls.certfile),
        Some(&tls.keyfile),
        tls.cafile.as_ref(),
        tls.crlfile.as_ref(),
    ];
    let changed_at = |file: &PathBuf| {
        std::fs::metadata(file)
            .and_then(|file| file.modified())
            .ok()
    };
    files.into_iter().flatten().map(changed_at).collect()
}

pub(super) fn spawn_listener(
    services: &Arc<Services>,
    listener: Listener,
    acceptor: Acceptor,
    config: ListenerConfig,
) -> Result<RunningListener, BrokerError> {
    let name: Arc<str> = Arc::from(config.name.as_str());
    let max_connections = config
        .max_connections
        .map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    log::info!(
        "Listener '{name}' bind to {} (max_connections={max_connections})",
        listener.local_address()
    );
    let state = Arc::new(ListenerState {
        name: Arc::clone(&name),
        certificate_times: Mutex::new(certificate_times(&config)),
        config,
        acceptor: RwLock::new(Arc::new(acceptor)),
        connections: AtomicUsize::new(0),
    });
    let listener = Arc::new(listener);
    let stopping = Arc::new(AtomicBool::new(false));
    let thread = {
        let (services, state) = (Arc::clone(services), Arc::clone(&state));
        let (listener, stopping) = (Arc::clone(&listener), Arc::clone(&stopping));
        thread::spawn(format!("accept-{name}"), ACCEPT_STACK_BYTES, move || {
            accept_loop(&services, &state, &listener, &stopping);
        })
        .map_err(BrokerError::Thread)?
    };
    Ok(RunningListener {
        state,
        listener,
        stopping,
        thread,
    })
}

pub(super) const ACCEPT_STACK_BYTES: usize = 256 * 1024;

/// Accepts until the listener is stopped; each connection gets a thread of its own.
fn accept_loop(
    services: &Arc<Services>,
    state: &Arc<ListenerState>,
    listener: &Listener,
    stopping: &AtomicBool,
) {
    loop {
        // BLOCKS: on the listening socket until a connection comes or the listener is stopped.
        let accepted = listener.accept();
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error) => {
                log::error!("Listener '{}': {error}", state.name);
                return;
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the deadline of the connection's handshake begins here"
        )]
        let opened_at = Instant::now();
        let id = services.next_connection();
        let (own, connection) = (Arc::clone(services), Arc::clone(state));
        let run = move || serve(&own, &connection, socket, id, opened_at);
        if let Err(error) = services.handshakes.run("handshake", run) {
            log::error!(
                "Listener '{}': no thread for a connection: {error}",
                state.name
            );
        }
    }
}
