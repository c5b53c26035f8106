//! The broker and its embedding API.
//!
//! ```no_run
//! use hbmqtt::broker::{Broker, Config};
//!
//! let mut broker = Broker::new(Config::default());
//! broker.start()?;
//! println!("listening on {}", broker.local_address("default").unwrap_or_default());
//! # Ok::<(), hbmqtt::broker::BrokerError>(())
//! ```

pub mod auth;
pub mod config;
mod connection;
mod context;
mod error;
mod listeners;
mod memory;
mod metrics;
mod persistence;
pub mod plugin;
mod privileges;
mod redirect;
mod response_area;
mod router;
mod sys;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::RwLock;

pub use self::config::{Config, ConfigError};
pub use self::context::BrokerContext;
pub use self::error::BrokerError;
pub use self::metrics::MetricsSnapshot;
pub use self::router::inspect::RouterStats;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use self::router::measure;

use self::auth::{AuthChains, Authenticate, Authorize, EnhancedAuthenticate, Extensions};
use self::connection::{HalfOpen, Services, Settings, Spares};
use self::listeners::{
    ACCEPT_STACK_BYTES, RunningListener, acceptor, bind, renew_certificates, spawn_listener,
};
use self::memory::MemoryWatch;
use self::metrics::Metrics;
use self::persistence::{Persistence, RunningStore};
use self::plugin::Plugin;
use self::plugin::PluginHost;
use self::router::command::Command;
use self::router::inbox::{Inbox, inbox};
use self::router::{Router, RouterSettings};
use crate::outbox::Outbox;
use crate::store::{Backlog, Durability, Store, StoreError};
use crate::thread;

/// Commands that wait for the router before connections stop reading.
const ROUTER_INBOX: usize = 1024;
/// Slices of outboxes that wait for the flush threads.
const FLUSH_INBOX: usize = 256;
/// Open files that the process needs beside its connections.
const SPARE_FILES: u64 = 200;
/// Threads that the process needs beside those of its connections.
const SPARE_THREADS: usize = 100;
/// How often memory and certificate files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What a [`Broker`] is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// Made, never started.
    New,
    /// In `start`.
    Starting,
    /// Listening.
    Started,
    /// `start` failed; nothing of it is left.
    NotStarted,
    /// In `shutdown`.
    Stopping,
    /// Stopped; it may be started again.
    Stopped,
    /// `shutdown` gave up waiting.
    NotStopped,
}

/// An MQTT broker inside a program.
///
/// Dropping it shuts it down, waiting up to a second.
pub struct Broker {
    config: Config,
    plugins: Vec<Box<dyn Plugin>>,
    extensions: Extensions,
    store: Option<Persistence>,
    state: BrokerState,
    running: Option<Running>,
}

/// What exists only while the broker runs.
struct Running {
    services: Arc<Services>,
    listeners: Vec<RunningListener>,
    router: JoinHandle<()>,
    store: Option<RunningStore>,
    flushers: Vec<JoinHandle<()>>,
    watch: JoinHandle<()>,
    stop_watch: Sender<()>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker with these settings, not started yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            plugins: Vec::new(),
            extensions: Extensions::default(),
            store: None,
            state: BrokerState::New,
            running: None,
        }
    }

    /// Adds a plugin, beside those that the settings name.
    #[must_use]
    pub fn plugin(mut self, plugin: Box<dyn Plugin>) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// Adds an authenticator, asked beside those that the settings name, and whether they name it or not. A list of
    /// plugins in the settings may hold its name.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticate>) -> Self {
        self.extensions.authenticators.push(authenticator);
        self
    }

    /// Adds a topic check, asked beside those that the settings name.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorize>) -> Self {
        self.extensions.authorizers.push(authorizer);
        self
    }

    /// Adds an authentication method of MQTT 5.0, beside SCRAM-SHA-256 if the settings name users for that.
    #[must_use]
    pub fn authentication_method(mut self, method: Arc<dyn EnhancedAuthenticate>) -> Self {
        self.extensions.methods.push(method);
        self
    }

    /// Keeps what must outlive the process in the store that `open` opens at each start, in place of the one that the
    /// settings name.
    ///
    /// `queue_memory`: how many bytes of queued messages are kept in memory too; beyond that they are read from the store
    /// when their turn comes.
    #[must_use]
    pub fn store<F>(mut self, durability: Durability, queue_memory: usize, open: F) -> Self
    where
        F: Fn() -> Result<Box<dyn Store>, StoreError> + Send + Sync + 'static,
    {
        self.store = Some(Persistence {
            open: Arc::new(open),
            durability,
            queue_memory,
        });
        self
    }

    /// What the broker is doing.
    #[must_use]
    pub fn state(&self) -> BrokerState {
        self.state
    }

    /// Opens the listeners and starts serving. Returns when every listener accepts connections.
    ///
    /// # Errors
    /// [`BrokerError`]. A start that fails leaves nothing bound and no thread behind.
    ///
    /// # Blocking
    /// Reads the files that the settings name, and resolves host names of listeners.
    pub fn start(&mut self) -> Result<(), BrokerError> {
        if self.running.is_some() {
            return Err(BrokerError::AlreadyStarted);
        }
        self.state = BrokerState::Starting;
        match self.launch() {
            Ok(running) => {
                self.running = Some(running);
                self.state = BrokerState::Started;
                Ok(())
            }
            Err(error) => {
                self.state = BrokerState::NotStarted;
                Err(error)
            }
        }
    }

    /// Reads all that [`start`](Self::start) would read: the settings of plugins, password, ACL and certificate files. Opens
    /// no listener and starts nothing.
    ///
    /// # Errors
    /// What `start` would fail with, ports in use excepted.
    ///
    /// # Blocking
    /// Reads the files that the settings name.
    pub fn check(&mut self) -> Result<(), BrokerError> {
        let config = &self.config;
        let plugins = PluginHost::new(config, &mut self.plugins, &self.extensions, Arc::default())?;
        let mut extensions = self.extensions.clone();
        plugins.extend(&mut extensions);
        let read = AuthChains::load(config, extensions)
            .and_then(|_| Ok(privileges::account(config).map(drop)?))
            .map_err(BrokerError::from);
        let read = read.and_then(|()| {
            let mut listeners = config.listeners.iter();
            listeners.try_for_each(|listener| acceptor(listener, &config.limits).map(drop))
        });
        self.plugins = plugins.stop();
        read
    }

    fn launch(&mut self) -> Result<Running, BrokerError> {
        let config = Arc::new(self.config.clone());
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let metrics = Arc::new(Metrics::default());
        let plugins = PluginHost::new(
            &config,
            &mut self.plugins,
            &self.extensions,
            Arc::clone(&metrics),
        )?;
        let plugins = Arc::new(plugins);
        let launched = self.launch_with(&config, &metrics, &plugins);
        if launched.is_err() {
            self.plugins = plugins.stop();
        }
        launched
    }

    fn launch_with(
        &self,
        config: &Arc<Config>,
        metrics: &Arc<Metrics>,
        plugins: &Arc<PluginHost>,
    ) -> Result<Running, BrokerError> {
        let mut extensions = self.extensions.clone();
        plugins.extend(&mut extensions);
        let auth = Arc::new(AuthChains::load(config, extensions)?);
        let account = privileges::account(config).map_err(ConfigError::from)?;
        let bound = config
            .listeners
            .iter()
            .map(|listener| bind(listener, &config.limits))
            .collect::<Result<Vec<_>, _>>()?;
        // Before the first thread.
        if let Some(account) = account {
            privileges::become_user(&account).map_err(ConfigError::from)?;
        }
        let (post, router_inbox) = inbox(ROUTER_INBOX);
        let services = Arc::new(Services {
            settings: RwLock::new(Settings {
                config: Arc::clone(config),
                auth,
            }),
            generation: AtomicU64::new(0),
            router: post,
            metrics: Arc::clone(metrics),
            plugins: Arc::clone(plugins),
            listeners: RwLock::new(Vec::new()),
            half_open: HalfOpen::new(Arc::clone(metrics)),
            last_connection: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            handshakes: thread::Pool::new(thread::CONNECTION_STACK_BYTES, thread::IDLE_FOR),
            readers: thread::Pool::new(thread::CONNECTION_STACK_BYTES, thread::IDLE_FOR),
            beginning: AtomicUsize::new(0),
            spares: Arc::new(Spares::new()),
            max_connections: max_connections(config),
            memory: Arc::new(MemoryWatch::new(config.limits.max_memory)),
            backlog: Arc::new(Backlog::new(config.limits.max_unwritten_bytes)),
        });
        let (flush_sender, flush_inbox) = bounded(FLUSH_INBOX);
        let flushers = spawn_flushers(&flush_inbox)?;
        let persistence = self
            .store
            .clone()
            .or_else(|| Persistence::of_config(config));
        let (router, store) = spawn_router(
            config,
            &services,
            persistence.as_ref(),
            flush_sender,
            router_inbox,
        )?;
        let (stop_watch, watch) = spawn_watch(&services)?;
        let mut running = Running {
            services,
            listeners: Vec::new(),
            router,
            store,
            flushers,
            watch,
            stop_watch,
        };
        // The router runs: plugins may ask it.
        let context = BrokerContext::new(Arc::clone(&running.services));
        if let Err(error) = plugins.start(Arc::new(context)) {
            let _ = running.stop(Duration::from_secs(1));
            return Err(BrokerError::Thread(error));
        }
        for (listener, acceptor, config) in bound {
            match spawn_listener(&running.services, listener, acceptor, config) {
                Ok(listener) => {
                    let state = Arc::clone(&listener.state);
                    running.services.listeners.write().push(state);
                    running.listeners.push(listener);
                }
                Err(error) => {
                    let _ = running.stop(Duration::from_secs(1));
                    return Err(error);
                }
            }
        }
        warn_about_openness(config);
        privileges::warn_about_root();
        redirect::announce(config);
        running.services.plugins.started();
        Ok(running)
    }

    /// Where a listener listens, as text: `127.0.0.1:1883`, a path, a name. `None` if there is no such listener now.
    #[must_use]
    pub fn local_address(&self, listener: &str) -> Option<String> {
        Some(
            self.listener(listener)?
                .listener
                .local_address()
                .to_string(),
        )
    }

    /// The TCP address of a listener: the real port where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self, listener: &str) -> Option<SocketAddr> {
        self.listener(listener)?.listener.socket_address()
    }

    fn listener(&self, name: &str) -> Option<&RunningListener> {
        self.running
            .as_ref()?
            .listeners
            .iter()
            .find(|listener| &*listener.state.name == name)
    }

    /// A handle for questions and messages to the running broker.
    ///
    /// # Errors
    /// [`BrokerError::NotRunning`].
    pub fn context(&self) -> Result<BrokerContext, BrokerError> {
        let running = self.running.as_ref().ok_or(BrokerError::NotRunning)?;
        Ok(BrokerContext::new(Arc::clone(&running.services)))
    }

    /// The names of the plugins that run.
    #[must_use]
    pub fn plugin_names(&self) -> Vec<String> {
        self.running
            .as_ref()
            .map(|running| running.services.plugins.names())
            .unwrap_or_default()
    }

    /// Puts new settings in force: access rules, password and certificate files, limits. What cannot change while the
    /// broker runs (listeners and their addresses) is named in the log and stays.
    ///
    /// # Errors
    /// [`BrokerError`]: the new settings are wrong; everything stays as it was.
    ///
    /// # Blocking
    /// Reads the files that the settings name.
    pub fn reload(&mut self, config: Config) -> Result<(), BrokerError> {
        let running = self.running.as_ref().ok_or(BrokerError::NotRunning)?;
        let services = &running.services;
        let auth = Arc::new(services.settings().auth.reload(&config)?);
        let mut acceptors = Vec::new();
        for listener in &running.listeners {
            match config
                .listeners
                .iter()
                .find(|config| *config.name == *listener.state.name)
            {
                Some(listener_config) => acceptors.push((
                    &listener.state,
                    Arc::new(acceptor(listener_config, &config.limits)?),
                )),
                None => log::warn!(
                    "reload: listener '{}' stays open until a restart",
                    listener.state.name
                ),
            }
        }
        for new in &config.listeners {
            match self
                .config
                .listeners
                .iter()
                .find(|old| old.name == new.name)
            {
                None => log::warn!(
                    "reload: listener '{}' is opened at the next start",
                    new.name
                ),
                Some(old) if old.bind != new.bind || old.kind != new.kind => {
                    log::warn!("reload: listener '{}' moves at the next start", new.name);
                }
                Some(_) => {}
            }
        }
        if config.user != self.config.user {
            log::warn!("reload: 'user' changes at the next start");
        }
        let (old, new) = (&self.config.persistence, &config.persistence);
        if (&old.file, old.durability, old.queue_memory_bytes)
            != (&new.file, new.durability, new.queue_memory_bytes)
        {
            log::warn!("reload: 'persistence' changes at the next start");
        }
        for (state, acceptor) in acceptors {
            *state.acceptor.write() = acceptor;
        }
        services.memory.set_limit(config.limits.max_memory);
        services
            .backlog
            .set_limit(config.limits.max_unwritten_bytes);
        let settings = Box::new(RouterSettings::from_config(&config));
        redirect::announce(&config);
        self.config = config.clone();
        *services.settings.write() = Settings {
            config: Arc::new(config),
            auth: Arc::clone(&auth),
        };
        services.generation.fetch_add(1, Ordering::Release);
        services
            .router
            .send(Command::Reload(settings, auth))
            .map_err(|_| BrokerError::NotRunning)?;
        log::info!("configuration reloaded");
        Ok(())
    }

    /// Says goodbye to every client (MQTT 5.0: DISCONNECT 0x8B), closes the listeners and ends all threads.
    ///
    /// # Errors
    /// [`BrokerError::NotRunning`]; [`BrokerError::ShutdownTimeout`] if connections were still open after `timeout`.
    ///
    /// # Blocking
    /// Up to `timeout`.
    pub fn shutdown(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        let running = self.running.take().ok_or(BrokerError::NotRunning)?;
        self.state = BrokerState::Stopping;
        let plugins = Arc::clone(&running.services.plugins);
        plugins.stopping();
        let stopped = running.stop(timeout);
        self.plugins = plugins.stop();
        self.state = if stopped.is_ok() {
            BrokerState::Stopped
        } else {
            BrokerState::NotStopped
        };
        log::info!("Broker closed");
        stopped
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.shutdown(Duration::from_secs(1));
        }
    }
}

impl Running {
    /// Listeners first, so that nobody new comes; then the clients; then the threads.
    fn stop(self, timeout: Duration) -> Result<(), BrokerError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the caller's thread waits here under one deadline"
        )]
        let deadline = Instant::now() + timeout;
        for listener in &self.listeners {
            listener.stopping.store(true, Ordering::Release);
            listener.listener.stop();
        }
        for listener in self.listeners {
            join(listener.thread);
            drop(listener.listener);
        }
        // BLOCKS: on the router's inbox.
        let _ = self
            .services
            .router
            .send(Command::Shutdown(redirect::at_shutdown(
                &self.services.settings().config,
            )));
        join(self.router);
        // After the goodbyes: a client that has CONNACK may still be counted among those that have not.
        self.services.half_open.close_all();
        // What waits for the disk leaves before the flush threads end.
        if let Some(store) = self.store {
            join(store.stop());
        }
        for flusher in self.flushers {
            join(flusher);
        }
        drop(self.stop_watch);
        join(self.watch);
        // A handshake that is just ending may still start a reader: in this order nobody is missed.
        let pools = [&self.services.handshakes, &self.services.readers];
        let stopped = pools.iter().all(|pool| pool.wait_until_inactive(deadline));
        pools.iter().for_each(|pool| pool.close_idle());
        if stopped {
            Ok(())
        } else {
            Err(BrokerError::ShutdownTimeout(timeout))
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        log::error!(
            "a thread of the broker panicked: {}",
            thread::panic_text(&*panic)
        );
    }
}

fn spawn_router(
    config: &Config,
    services: &Arc<Services>,
    persistence: Option<&Persistence>,
    flushers: Sender<Vec<Arc<Outbox>>>,
    inbox: Inbox,
) -> Result<(JoinHandle<()>, Option<RunningStore>), BrokerError> {
    #[expect(clippy::disallowed_methods, reason = "the broker's clock starts here")]
    let now = Instant::now();
    let mut router = Router::new(
        RouterSettings::from_config(config),
        services.settings().auth,
        Arc::clone(&services.metrics),
        Arc::clone(&services.plugins),
        Arc::clone(&services.memory),
        flushers.clone(),
        now,
    );
    let opened = persistence
        .map(|persistence| persistence.restore(&mut router, &services.backlog, now))
        .transpose()
        .map_err(BrokerError::Store)?;
    let store = opened
        .map(|opened| opened.run(services.router.clone(), flushers))
        .transpose()
        .map_err(BrokerError::Thread)?;
    let router = thread::spawn_critical("router", move || router.run(&inbox))
        .map_err(BrokerError::Thread)?;
    Ok((router, store))
}

fn spawn_flushers(inbox: &Receiver<Vec<Arc<Outbox>>>) -> Result<Vec<JoinHandle<()>>, BrokerError> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count)
        .map(|number| {
            let inbox = inbox.clone();
            thread::spawn_critical(format!("flush-{number}"), move || {
                for outbox in inbox.iter().flatten() {
                    let _ = outbox.flush();
                }
            })
        })
        .collect::<io::Result<_>>()
        .map_err(BrokerError::Thread)
}

/// Looks at the memory of the process and at the certificate files of its listeners, once a second.
fn spawn_watch(services: &Arc<Services>) -> Result<(Sender<()>, JoinHandle<()>), BrokerError> {
    let (stop, stopped) = bounded::<()>(0);
    let services = Arc::clone(services);
    let handle = thread::spawn("watch", ACCEPT_STACK_BYTES, move || {
        while stopped.recv_timeout(WATCH_INTERVAL)
            == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            services.memory.look();
            let listeners = services.listeners.read().clone();
            renew_certificates(&listeners, &services.settings().config.limits);
        }
    })
    .map_err(BrokerError::Thread)?;
    Ok((stop, handle))
}

/// As many connections as the process may have files and threads, less some for everything else.
fn max_connections(config: &Config) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let by_files = usize::try_from(files.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX);
    let threads = thread::most();
    // A connection that comes has a thread for its handshake before it has its own.
    let spare = config.limits.max_half_open_connections.min(threads / 8);
    let by_threads = threads.saturating_sub(spare.saturating_add(SPARE_THREADS));
    let possible = by_files.min(by_threads);
    match config.limits.max_connections {
        Some(wanted) if wanted > possible => {
            if by_files <= by_threads {
                log::warn!(
                    "max-connections is {wanted}, but the process may open {files} files: {possible} connections at \
                     most. Raise the limit with 'ulimit -n' or LimitNOFILE"
                );
            } else {
                log::warn!(
                    "max-connections is {wanted}, but the process may have {threads} threads: {possible} connections \
                     at most. Raise the limit with 'sysctl vm.max_map_count'"
                );
            }
            possible
        }
        Some(wanted) => wanted,
        None => possible,
    }
}

/// Says which listeners everybody may use.
fn warn_about_openness(config: &Config) {
    for listener in &config.listeners {
        let auth = listener.auth.as_ref().unwrap_or(&config.auth);
        if auth.allow_anonymous && listener.bind.is_public() {
            log::warn!(
                "everyone who can reach listener '{}' ({}) may use it: set 'allow-anonymous: off' and a \
                 'password-file' in section 'auth' to change that",
                listener.name,
                listener.bind
            );
        }
    }
}
