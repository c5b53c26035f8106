use bytes::Bytes;

use super::*;
use crate::broker::auth::{Access, Authenticate, Authorize, ConnectInfo, Verdict};
use crate::broker::plugin::{ContextError, SessionInfo, SubscriptionInfo};
use crate::proto::packet::QoS;
use crate::proto::{Message, ProtocolVersion, TopicName};

const LONG: Duration = Duration::from_secs(30);

/// A broker of which nothing can be had.
struct NoBroker;

impl PluginContext for NoBroker {
    fn config(&self) -> Arc<Config> {
        Arc::default()
    }

    fn broadcast_message(&self, _: &str, _: Bytes, _: QoS) -> Result<(), ContextError> {
        Err(ContextError::Stopped)
    }

    fn retain_message(&self, _: &str, _: Bytes, _: QoS) -> Result<(), ContextError> {
        Err(ContextError::Stopped)
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }

    fn get_session(&self, _: &str) -> Option<SessionInfo> {
        None
    }

    fn retained_messages(&self) -> Vec<Arc<Message>> {
        Vec::new()
    }

    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        Vec::new()
    }

    fn add_subscription(&self, _: &str, _: &str, _: QoS) -> Result<(), ContextError> {
        Err(ContextError::Stopped)
    }
}

/// Reports what it is called for, and panics or waits where it is told to.
struct Probe {
    name: &'static str,
    calls: Sender<String>,
    interests: Interests,
    panics_at: Option<&'static str>,
    /// Each event waits for a word from here, if it is set.
    gate: Option<Receiver<()>>,
}

impl Probe {
    fn new(name: &'static str) -> (Self, Receiver<String>) {
        let (calls, seen) = bounded(1_000);
        let probe = Self {
            name,
            calls,
            interests: Interests::ALL,
            panics_at: None,
            gate: None,
        };
        (probe, seen)
    }

    fn called(&self, what: impl Into<String>) {
        let what = what.into();
        let panics = self.panics_at.is_some_and(|at| what.starts_with(at));
        self.calls.send(what).unwrap();
        if let Some(gate) = &self.gate {
            let _ = gate.recv_timeout(LONG);
        }
        assert!(!panics, "on purpose");
    }
}

impl Plugin for Probe {
    fn name(&self) -> &str {
        self.name
    }

    fn configure(
        &mut self,
        options: &Node,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match options.get("refuse") {
            Some(_) => Err("the option 'refuse' is not for me".into()),
            None => Ok(()),
        }
    }

    fn interests(&self) -> Interests {
        self.interests
    }

    fn on_broker_pre_start(&mut self, _: &dyn PluginContext) {
        self.called("pre_start");
    }

    fn on_broker_post_start(&mut self, _: &dyn PluginContext) {
        self.called("post_start");
    }

    fn on_broker_pre_shutdown(&mut self, _: &dyn PluginContext) {
        self.called("pre_shutdown");
    }

    fn on_broker_post_shutdown(&mut self, _: &dyn PluginContext) {
        self.called("post_shutdown");
    }

    fn on_broker_client_connected(&mut self, _: &dyn PluginContext, client: &SessionInfo) {
        self.called(format!("connected {}", client.client_id));
    }

    fn on_broker_client_disconnected(&mut self, _: &dyn PluginContext, client: &SessionInfo) {
        self.called(format!("disconnected {}", client.client_id));
    }

    fn on_broker_client_subscribed(
        &mut self,
        _: &dyn PluginContext,
        id: &str,
        filter: &str,
        qos: QoS,
    ) {
        self.called(format!("subscribed {id} {filter} {}", qos.as_u8()));
    }

    fn on_broker_client_unsubscribed(&mut self, _: &dyn PluginContext, id: &str, filter: &str) {
        self.called(format!("unsubscribed {id} {filter}"));
    }

    fn on_broker_message_received(&mut self, _: &dyn PluginContext, id: &str, message: &Message) {
        self.called(format!("message {id} {}", message.topic.as_str()));
    }

    fn on_broker_retained_message(
        &mut self,
        _: &dyn PluginContext,
        id: Option<&str>,
        message: &Message,
    ) {
        self.called(format!("retained {id:?} {}", message.topic.as_str()));
    }

    fn on_broker_message_broadcast(
        &mut self,
        _: &dyn PluginContext,
        id: Option<&str>,
        message: &Message,
    ) {
        self.called(format!("broadcast {id:?} {}", message.topic.as_str()));
    }

    fn on_mqtt_packet_sent(
        &mut self,
        _: &dyn PluginContext,
        packet: &crate::proto::Packet,
        client: &SessionInfo,
    ) {
        self.called(format!("sent {packet:?} {}", client.client_id));
    }

    fn on_mqtt_packet_received(
        &mut self,
        _: &dyn PluginContext,
        packet: &crate::proto::Packet,
        client: &SessionInfo,
    ) {
        self.called(format!("received {packet:?} {}", client.client_id));
    }

    fn close(&mut self) {
        self.called("close");
    }
}

fn new(text: &str, mut own: Vec<Box<dyn Plugin>>) -> Result<PluginHost, ConfigError> {
    PluginHost::new(
        &Config::parse(text).unwrap(),
        &mut own,
        &Extensions::default(),
        Arc::default(),
    )
}

fn host(text: &str, own: Vec<Box<dyn Plugin>>) -> PluginHost {
    let host = new(text, own).unwrap();
    host.start(Arc::new(NoBroker)).unwrap();
    host
}

fn refusal(text: &str, own: Vec<Box<dyn Plugin>>) -> String {
    new(text, own).unwrap_err().to_string()
}

fn all(seen: &Receiver<String>) -> Vec<String> {
    seen.try_iter().collect()
}

fn client() -> Arc<SessionInfo> {
    Arc::new(SessionInfo {
        client_id: "c".into(),
        user_name: None,
        version: ProtocolVersion::V311,
        connected: true,
        clean_start: true,
        session_present: false,
        keep_alive: 0,
        address: None,
        listener: "default".into(),
        will_topic: None,
        will_payload: Bytes::new(),
        will_qos: QoS::AtMostOnce,
        will_retain: false,
        inflight_in: 0,
        inflight_out: 0,
        queued: 0,
    })
}

fn message() -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::parse("t").unwrap(),
        payload: Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: None,
        expires_at: None,
    })
}

/// PLG-13, PLG-14.
fn every_client_event() -> Vec<Event> {
    let (client_id, filter) = ("c", "f");
    vec![
        Event::ClientConnected { client: client() },
        Event::ClientSubscribed {
            client_id: client_id.into(),
            filter: filter.into(),
            qos: QoS::AtLeastOnce,
        },
        Event::MessageReceived {
            client_id: client_id.into(),
            message: message(),
        },
        Event::RetainedMessage {
            client_id: None,
            message: message(),
        },
        Event::MessageBroadcast {
            client_id: Some(client_id.into()),
            message: message(),
        },
        Event::PacketSent {
            packet: Box::new(crate::proto::Packet::Pingresp),
            client: client(),
        },
        Event::PacketReceived {
            packet: Box::new(crate::proto::Packet::Pingreq),
            client: client(),
        },
        Event::ClientUnsubscribed {
            client_id: client_id.into(),
            filter: filter.into(),
        },
        Event::ClientDisconnected { client: client() },
    ]
}

#[test]
fn each_event_calls_its_method_in_order_and_close_comes_last_and_once() {
    let (probe, seen) = Probe::new("probe");
    let host = host("", vec![Box::new(probe)]);
    host.started();
    every_client_event()
        .into_iter()
        .for_each(|event| host.fire(event));
    host.stopping();
    let plugins = host.stop();
    assert_eq!(
        all(&seen),
        [
            "pre_start",
            "post_start",
            "connected c",
            "subscribed c f 1",
            "message c t",
            "retained None t",
            "broadcast Some(\"c\") t",
            "sent Pingresp c",
            "received Pingreq c",
            "unsubscribed c f",
            "disconnected c",
            "pre_shutdown",
            "post_shutdown",
            "close",
        ]
    );
    // The program gets its plugin back, for the next start.
    assert_eq!(plugins.len(), 1);
    assert!(host.stop().is_empty());
    assert_eq!(all(&seen), Vec::<String>::new());
    assert_eq!(host.metrics.plugin_events_dropped.value(), 0);
}

#[test]
fn the_names_of_events_are_hbmqtts() {
    let names: Vec<_> = every_client_event().iter().map(Event::name).collect();
    assert_eq!(
        names,
        [
            "broker_client_connected",
            "broker_client_subscribed",
            "broker_message_received",
            "broker_retained_message",
            "broker_message_broadcast",
            "mqtt_packet_sent",
            "mqtt_packet_received",
            "broker_client_unsubscribed",
            "broker_client_disconnected",
        ]
    );
}

#[test]
fn a_plugin_hears_only_of_what_it_wants_to_hear() {
    let (mut quiet, seen) = Probe::new("quiet");
    quiet.interests = Interests::LIFE_CYCLE;
    let (mut packets, seen_by_packets) = Probe::new("packets");
    packets.interests = Interests {
        messages: false,
        packets: true,
    };
    let host = host("", vec![Box::new(quiet), Box::new(packets)]);
    assert!(host.wants_packets() && !host.wants_messages() && host.is_active());
    every_client_event()
        .into_iter()
        .for_each(|event| host.fire(event));
    host.stop();
    let of_interest = |seen: &Receiver<String>| {
        let calls = all(seen);
        let count = |word: &str| calls.iter().filter(|call| call.starts_with(word)).count();
        (
            count("message"),
            count("sent"),
            count("received"),
            count("connected"),
        )
    };
    assert_eq!(of_interest(&seen), (0, 0, 0, 1));
    assert_eq!(of_interest(&seen_by_packets), (0, 1, 1, 1));
}

#[test]
fn a_panic_is_contained_and_the_plugin_hears_of_the_next_event() {
    let (mut panicking, seen) = Probe::new("panicking");
    panicking.panics_at = Some("connected");
    let (other, seen_by_other) = Probe::new("other");
    let host = host("", vec![Box::new(panicking), Box::new(other)]);
    host.fire(Event::ClientConnected { client: client() });
    host.fire(Event::ClientDisconnected { client: client() });
    assert_eq!(host.stop().len(), 2);
    let expected = [
        "pre_start",
        "connected c",
        "disconnected c",
        "post_shutdown",
        "close",
    ];
    assert_eq!(all(&seen), expected);
    assert_eq!(all(&seen_by_other), expected);
}

#[test]
fn events_that_find_the_inbox_full_are_dropped_and_counted() {
    let (mut slow, seen) = Probe::new("slow");
    let (open, gate) = bounded(100);
    slow.gate = Some(gate);
    open.send(()).unwrap();
    let host = host("limits: {max-plugin-events: 2}", vec![Box::new(slow)]);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "pre_start");
    host.fire(Event::ClientConnected { client: client() });
    // Now the plugin sits in this event, and two more may wait.
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "connected c");
    for _ in 0..5 {
        host.fire(Event::ClientDisconnected { client: client() });
    }
    assert_eq!(host.metrics.plugin_events_dropped.value(), 3);
    drop(open);
    host.stop();
    assert_eq!(
        all(&seen),
        ["disconnected c", "disconnected c", "post_shutdown", "close"]
    );
}

#[test]
fn without_plugins_there_is_nothing_to_run() {
    let host = host("", Vec::new());
    assert!(!host.is_active() && !host.wants_messages() && !host.wants_packets());
    host.started();
    host.stopping();
    assert!(host.stop().is_empty());
}

#[test]
fn a_host_that_never_started_gives_the_plugins_back() {
    let (probe, seen) = Probe::new("probe");
    let host = new("", vec![Box::new(probe)]).unwrap();
    assert_eq!(host.stop().len(), 1);
    assert_eq!(all(&seen), Vec::<String>::new());
}

/// PLG-17.
#[test]
fn the_names_of_what_runs_can_be_asked_for() {
    let names = |text: &str| new(text, Vec::new()).unwrap().names();
    assert_eq!(names(""), ["auth_anonymous", "auth_file", "broker_sys"]);
    assert_eq!(
        names("plugins: [event_logger_plugin]\nsys_interval: 0"),
        ["event_logger_plugin"]
    );
    assert_eq!(
        names("auth: {plugins: [auth_file]}\ntopic-check: {enabled: on, plugins: [topic_acl]}"),
        ["auth_file", "topic_acl", "broker_sys"]
    );
    let (probe, _) = Probe::new("probe");
    let own = new("plugins: []", vec![Box::new(probe)]).unwrap();
    assert_eq!(own.names(), ["broker_sys", "probe"]);
}

/// DEC-3.
#[test]
fn a_name_that_no_plugin_has_stops_the_start() {
    let known = "known are auth_anonymous, auth_file, auth_scram, topic_taboo, topic_acl, broker_sys, packet_logger_plugin, event_logger_plugin";
    for (text, message) in [
        (
            "plugins: [auth_flie]",
            "line 1, column 11: plugins: unknown plugin 'auth_flie'; did you mean 'auth_file'?"
                .to_owned(),
        ),
        (
            "auth: {plugins: [ldap]}",
            format!("line 1, column 18: plugins: unknown plugin 'ldap'; {known}"),
        ),
        (
            "topic-check: {plugins: [x]}",
            format!("line 1, column 25: plugins: unknown plugin 'x'; {known}"),
        ),
        (
            "listeners: {a: {bind: 1, auth: {plugins: [x]}}}",
            format!("line 1, column 43: plugins: unknown plugin 'x'; {known}"),
        ),
    ] {
        assert_eq!(refusal(text, Vec::new()), message, "{text}");
    }
    let (probe, _) = Probe::new("ldap");
    assert!(new("auth: {plugins: [ldap]}", vec![Box::new(probe)]).is_ok());
}

#[test]
fn a_plugin_that_refuses_its_options_stops_the_start() {
    let (probe, _) = Probe::new("probe");
    assert_eq!(
        refusal("plugins:\n  - probe: {refuse: 1}\n", vec![Box::new(probe)]),
        "line 2, column 5: plugins.probe: the option 'refuse' is not for me"
    );
}

#[test]
fn what_plugins_bring_along_joins_the_checks() {
    struct Gatekeeper;
    impl Authenticate for Gatekeeper {
        fn name(&self) -> &str {
            "gatekeeper"
        }
        fn authenticate(&self, _: &ConnectInfo<'_>) -> Verdict {
            Verdict::Allow
        }
    }
    impl Authorize for Gatekeeper {
        fn name(&self) -> &str {
            "gatekeeper"
        }
        fn authorize(&self, _: &Access<'_>) -> Verdict {
            Verdict::Allow
        }
    }
    impl Plugin for Gatekeeper {
        fn name(&self) -> &str {
            "gatekeeper"
        }
        fn authenticator(&self) -> Option<Arc<dyn Authenticate>> {
            Some(Arc::new(Self))
        }
        fn authorizer(&self) -> Option<Arc<dyn Authorize>> {
            Some(Arc::new(Self))
        }
    }
    let host = host("", vec![Box::new(Gatekeeper)]);
    let mut extensions = Extensions::default();
    host.extend(&mut extensions);
    assert_eq!(
        (
            extensions.authenticators.len(),
            extensions.authorizers.len()
        ),
        (1, 1)
    );
    host.stop();
}

/// `auth.plugins` may name what the program gave to the broker itself.
#[test]
fn the_settings_may_name_the_authenticators_of_the_program() {
    struct Tokens;
    impl Authenticate for Tokens {
        fn name(&self) -> &str {
            "my.tokens"
        }
        fn authenticate(&self, _: &ConnectInfo<'_>) -> Verdict {
            Verdict::Abstain
        }
    }
    let config = Config::parse("auth: {plugins: [auth_anonymous, my-tokens]}").unwrap();
    let with = |checks: &Extensions| {
        PluginHost::new(&config, &mut Vec::new(), checks, Arc::default()).map(drop)
    };
    let mut checks = Extensions::default();
    let refusal = with(&checks).unwrap_err().to_string();
    assert!(refusal.contains("unknown plugin 'my_tokens'"), "{refusal}");
    checks.authenticators.push(Arc::new(Tokens));
    with(&checks).unwrap();
}
