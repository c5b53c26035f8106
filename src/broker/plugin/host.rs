//! Runs the plugins: their thread, its inbox, and which events are worth making at all.

use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::{error, warn};
use parking_lot::Mutex;

use super::built_in::{self, BuiltIn};
use super::{Event, Interests, Plugin, PluginContext};
use crate::broker::auth::Extensions;
use crate::broker::config::{Config, ConfigError, PluginConfig, Problem};
use crate::broker::metrics::Metrics;
use crate::thread;
use crate::yaml::Node;

/// The plugins of a broker, from before it starts until after it has stopped.
pub(crate) struct PluginHost {
    names: Vec<String>,
    extensions: Extensions,
    interests: Interests,
    jobs: Sender<Job>,
    /// What the thread takes along when it starts.
    before_start: Mutex<Option<BeforeStart>>,
    is_active: bool,
    metrics: Arc<Metrics>,
}

struct BeforeStart {
    plugins: Plugins,
    inbox: Receiver<Job>,
}

/// The built-in ones, then those of the program that embeds the broker.
#[derive(Default)]
struct Plugins {
    built_in: Vec<Box<dyn Plugin>>,
    own: Vec<Box<dyn Plugin>>,
}

enum Job {
    Event(Event),
    /// An event that somebody waits for.
    Await(Event, Sender<()>),
    /// The last job: close the plugins and give back the program's own.
    Stop(Sender<Vec<Box<dyn Plugin>>>),
}

impl PluginHost {
    /// Adds the built-in plugins that the settings ask for to the program's own, hands each its options, and takes `own`.
    /// `checks` has the program's authenticators and topic checks, which the settings may name too.
    ///
    /// # Errors
    /// [`ConfigError`]: the settings name a plugin that does not exist, or one refuses its options.
    /// Then `own` is as it was.
    pub(crate) fn new(
        config: &Config,
        own: &mut Vec<Box<dyn Plugin>>,
        checks: &Extensions,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        check_names(config, own, checks)?;
        let mut built_in = built_in::plugins(config);
        let mut extensions = Extensions::default();
        let mut interests = Interests::LIFE_CYCLE;
        for plugin in built_in.iter_mut().chain(own.iter_mut()) {
            let options = listed(config).find(|listed| listed.name == plugin.name());
            let (place, options) = match options {
                Some(listed) => (listed.place, &listed.options),
                None => (None, &Node::NULL),
            };
            if let Err(error) = plugin.configure(options) {
                let key = format!("plugins.{}", plugin.name());
                return Err(Problem::new(key, error.to_string()).at(place).into());
            }
            extensions.authenticators.extend(plugin.authenticator());
            extensions.authorizers.extend(plugin.authorizer());
            extensions.methods.extend(plugin.authentication_method());
            let more = plugin.interests();
            interests.messages |= more.messages;
            interests.packets |= more.packets;
        }
        let mut plugins = Plugins {
            built_in,
            own: mem::take(own),
        };
        let mut names = built_in::active_checks(config);
        names.extend(plugins.all().map(|plugin| plugin.name().to_owned()));
        let is_active = plugins.all().next().is_some();
        // The channel takes its memory at once: none without plugins.
        let places = if is_active {
            config.limits.max_plugin_events
        } else {
            1
        };
        let (jobs, inbox) = bounded(places);
        Ok(Self {
            names,
            extensions,
            interests,
            jobs,
            before_start: Mutex::new(Some(BeforeStart { plugins, inbox })),
            is_active,
            metrics,
        })
    }

    /// Adds the authenticators and topic checks that plugins bring along.
    pub(crate) fn extend(&self, extensions: &mut Extensions) {
        let (more, from) = (extensions, &self.extensions);
        more.authenticators
            .extend(from.authenticators.iter().cloned());
        more.authorizers.extend(from.authorizers.iter().cloned());
        more.methods.extend(from.methods.iter().cloned());
    }

    /// Starts the thread and fires `broker_pre_start`.
    ///
    /// # Blocking
    /// Until the plugins have handled it, at most [`PATIENCE`].
    pub(crate) fn start(&self, context: Arc<dyn PluginContext>) -> std::io::Result<()> {
        let Some(BeforeStart { plugins, inbox }) = self.before_start.lock().take() else {
            return Ok(());
        };
        if !self.is_active {
            return Ok(());
        }
        let runner = Runner {
            plugins,
            context,
            panics: 0,
            metrics: Arc::clone(&self.metrics),
            told_at: None,
        };
        thread::spawn("plugins", 0, move || runner.run(&inbox))?;
        self.fire_and_wait(Event::BrokerPreStart);
        Ok(())
    }

    /// Fires `broker_post_start`.
    pub(crate) fn started(&self) {
        self.fire(Event::BrokerPostStart);
    }

    /// Fires `broker_pre_shutdown`.
    ///
    /// # Blocking
    /// Until the plugins have handled it, at most [`PATIENCE`].
    pub(crate) fn stopping(&self) {
        self.fire_and_wait(Event::BrokerPreShutdown);
    }

    /// Fires `broker_post_shutdown`, closes the plugins, ends the thread and gives back the plugins that were not built
    /// in. None come back if a plugin hangs, or if the thread was never started.
    ///
    /// # Blocking
    /// At most twice [`PATIENCE`].
    pub(crate) fn stop(&self) -> Vec<Box<dyn Plugin>> {
        if let Some(BeforeStart { plugins, .. }) = self.before_start.lock().take() {
            return plugins.own;
        }
        if !self.is_active {
            return Vec::new();
        }
        self.fire_and_wait(Event::BrokerPostShutdown);
        let (sender, plugins) = bounded(1);
        let sent = self.jobs.send_timeout(Job::Stop(sender), PATIENCE);
        // BLOCKS: until the plugins are closed, or the patience is over.
        match sent.ok().and_then(|()| plugins.recv_timeout(PATIENCE).ok()) {
            Some(plugins) => plugins,
            None => {
                error!("a plugin hangs: the thread 'plugins' is left behind");
                Vec::new()
            }
        }
    }

    /// The names of what runs: built-in authenticators and topic checks that are active, and all plugins.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// There is a plugin: events are wanted.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Some plugin wants the events of each message.
    pub(crate) fn wants_messages(&self) -> bool {
        self.interests.messages
    }

    /// Some plugin wants the events of each packet.
    pub(crate) fn wants_packets(&self) -> bool {
        self.interests.packets
    }

    /// Hands an event to the plugins. Never blocks: when too many wait it is dropped and counted.
    pub(crate) fn fire(&self, event: Event) {
        if self.is_active
            && let Err(TrySendError::Full(_)) = self.jobs.try_send(Job::Event(event))
        {
            self.metrics.plugin_events_dropped.increment();
        }
    }

    fn fire_and_wait(&self, event: Event) {
        if !self.is_active {
            return;
        }
        let name = event.name();
        let (sender, done) = bounded(1);
        let sent = self.jobs.send_timeout(Job::Await(event, sender), PATIENCE);
        // BLOCKS: until the plugins have handled the event, or the patience is over.
        if sent.is_err() || done.recv_timeout(PATIENCE).is_err() {
            warn!("a plugin does not finish with {name}: going on without it");
        }
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Plugins {
    fn all(&mut self) -> impl Iterator<Item = &mut Box<dyn Plugin>> {
        self.built_in.iter_mut().chain(&mut self.own)
    }
}

/// What the thread `plugins` runs.
struct Runner {
    plugins: Plugins,
    context: Arc<dyn PluginContext>,
    panics: u64,
    metrics: Arc<Metrics>,
    /// When dropped events were logged the last time, and how many there had been then.
    told_at: Option<(Instant, u64)>,
}

impl Runner {
    fn run(mut self, inbox: &Receiver<Job>) {
        // BLOCKS: on the inbox until the next event, and in the plugins.
        for job in inbox {
            self.tell_of_dropped();
            match job {
                Job::Event(event) => self.deliver(&event),
                Job::Await(event, done) => {
                    self.deliver(&event);
                    let _ = done.try_send(());
                }
                Job::Stop(reply) => {
                    self.each("close", |plugin, _| plugin.close());
                    let _ = reply.try_send(self.plugins.own);
                    return;
                }
            }
        }
    }

    fn deliver(&mut self, event: &Event) {
        self.each(event.name(), |plugin, context| {
            dispatch(event, plugin, context)
        });
    }

    /// Calls each plugin; a panic in one is logged, and concerns no other.
    fn each(&mut self, what: &str, mut call: impl FnMut(&mut dyn Plugin, &dyn PluginContext)) {
        for plugin in self.plugins.all() {
            let plugin: &mut dyn Plugin = &mut **plugin;
            let context: &dyn PluginContext = &*self.context;
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| call(&mut *plugin, context)));
            if let Err(panic) = outcome {
                self.panics += 1;
                // A plugin that panics for each packet would fill the disk.
                if self.panics.is_power_of_two() {
                    let (name, text) = (plugin.name(), thread::panic_text(&*panic));
                    let panics = self.panics;
                    error!("plugin '{name}' panicked in {what}: {text} (panics so far: {panics})");
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the loop of a thread")]
    fn tell_of_dropped(&mut self) {
        let dropped = self.metrics.plugin_events_dropped.value();
        let told = self.told_at.map_or(0, |(_, dropped)| dropped);
        if dropped == told {
            return;
        }
        let now = Instant::now();
        if self
            .told_at
            .is_none_or(|(at, _)| now.duration_since(at) >= BETWEEN_LINES)
        {
            warn!(
                "{} events for plugins were dropped: they are too slow",
                dropped - told
            );
            self.told_at = Some((now, dropped));
        }
    }
}

/// Calls the method that belongs to an event, if the plugin wants such events.
fn dispatch(event: &Event, plugin: &mut dyn Plugin, broker: &dyn PluginContext) {
    let interests = plugin.interests();
    match event {
        Event::MessageReceived { .. }
        | Event::RetainedMessage { .. }
        | Event::MessageBroadcast { .. }
            if !interests.messages => {}
        Event::PacketSent { .. } | Event::PacketReceived { .. } if !interests.packets => {}
        Event::BrokerPreStart => plugin.on_broker_pre_start(broker),
        Event::BrokerPostStart => plugin.on_broker_post_start(broker),
        Event::BrokerPreShutdown => plugin.on_broker_pre_shutdown(broker),
        Event::BrokerPostShutdown => plugin.on_broker_post_shutdown(broker),
        Event::ClientConnected { client } => plugin.on_broker_client_connected(broker, client),
        Event::ClientDisconnected { client } => {
            plugin.on_broker_client_disconnected(broker, client);
        }
        Event::ClientSubscribed {
            client_id,
            filter,
            qos,
        } => plugin.on_broker_client_subscribed(broker, client_id, filter, *qos),
        Event::ClientUnsubscribed { client_id, filter } => {
            plugin.on_broker_client_unsubscribed(broker, client_id, filter);
        }
        Event::MessageReceived { client_id, message } => {
            plugin.on_broker_message_received(broker, client_id, message);
        }
        Event::RetainedMessage { client_id, message } => {
            plugin.on_broker_retained_message(broker, client_id.as_deref(), message);
        }
        Event::MessageBroadcast { client_id, message } => {
            plugin.on_broker_message_broadcast(broker, client_id.as_deref(), message);
        }
        Event::MessageDropped {
            client_id,
            topic,
            reason,
        } => plugin.on_broker_message_dropped(broker, client_id, topic.as_deref(), *reason),
        Event::PacketSent { packet, client } => plugin.on_mqtt_packet_sent(broker, packet, client),
        Event::PacketReceived { packet, client } => {
            plugin.on_mqtt_packet_received(broker, packet, client);
        }
    }
}

/// All lists of plugins in the settings.
fn listed(config: &Config) -> impl Iterator<Item = &PluginConfig> {
    let own = config
        .listeners
        .iter()
        .filter_map(|listener| listener.auth.as_ref());
    let auth = std::iter::once(&config.auth)
        .chain(own)
        .map(|auth| auth.plugins.as_ref());
    std::iter::once(config.plugins.as_ref())
        .chain(auth)
        .chain([config.topic_check.plugins.as_ref()])
        .flatten()
        .flatten()
}

/// DEC-3: a name that nobody has is an error, not a plugin less.
fn check_names(
    config: &Config,
    own: &[Box<dyn Plugin>],
    checks: &Extensions,
) -> Result<(), ConfigError> {
    let checks = checks.names();
    let known: Vec<&str> = BuiltIn::ALL
        .iter()
        .map(|built_in| built_in.name())
        .chain(own.iter().map(|plugin| plugin.name()))
        .chain(checks.iter().map(String::as_str))
        .collect();
    let mut problems = Vec::new();
    for plugin in listed(config) {
        if known.contains(&plugin.name.as_str()) {
            continue;
        }
        let name = plugin.name.escape_debug();
        let message = match crate::yaml::nearest(&plugin.name, &known) {
            Some(near) => format!("unknown plugin '{name}'; did you mean '{near}'?"),
            None => format!("unknown plugin '{name}'; known are {}", known.join(", ")),
        };
        problems.push(Problem::new("plugins", message).at(plugin.place));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ConfigError::Invalid(problems))
    }
}

/// How long the broker waits for plugins where it waits for them at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two log lines about dropped events.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
