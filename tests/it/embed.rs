//! The broker inside a program: the embedding API, and plugins.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hbmqtt::broker::auth::{Access, Authenticate, Authorize, ConnectInfo, Verdict};
use hbmqtt::broker::plugin::{Plugin, PluginContext, SessionInfo};
use hbmqtt::broker::{Broker, BrokerError, BrokerState, Config};
use hbmqtt::client::{ConnectOptions, PublishOptions};
use hbmqtt::{Message, QoS};

use crate::support::broker::free_port;
use crate::support::{PATIENCE, eventually, unique};

/// BAPI-1, BAPI-4, DEC-18: the default configuration is HBMQTT's, and every state is passed.
#[test]
fn states_follow_start_and_shutdown() {
    let config = Config::default();
    assert_eq!(config.listeners[0].bind.to_string(), "0.0.0.0:1883");
    let mut broker = Broker::new(on_port(0));
    assert_eq!(broker.state(), BrokerState::New);
    broker.start().unwrap();
    assert_eq!(broker.state(), BrokerState::Started);
    assert!(matches!(broker.start(), Err(BrokerError::AlreadyStarted)));
    broker.shutdown(PATIENCE).unwrap();
    assert_eq!(broker.state(), BrokerState::Stopped);
    assert!(matches!(
        broker.shutdown(PATIENCE),
        Err(BrokerError::NotRunning)
    ));
    // And again.
    broker.start().unwrap();
    assert_eq!(broker.state(), BrokerState::Started);
}

/// BAPI-2, BC-3: port 0 is replaced by a real one, which is reported; the broker listens when `start` returns.
#[test]
fn the_real_address_is_reported() {
    let mut broker = Broker::new(on_port(0));
    assert_eq!(broker.local_addr("default"), None);
    broker.start().unwrap();
    let address = broker.local_addr("default").unwrap();
    assert!(address.port() != 0);
    assert_eq!(
        broker.local_address("default").unwrap(),
        address.to_string()
    );
    assert_eq!(broker.local_addr("other"), None);
    drop(TcpStream::connect(address).unwrap());
}

/// BAPI-2: a start that fails leaves nothing bound, and may be tried again.
#[test]
fn a_failed_start_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_port();
    let config = Config::parse(&format!(
        "listeners:\n  first: {{bind: '127.0.0.1:{free}'}}\n  second: {{bind: '{}'}}\n",
        taken.local_addr().unwrap()
    ))
    .unwrap();
    let mut broker = Broker::new(config);
    assert!(matches!(broker.start(), Err(BrokerError::Listener { name, .. }) if name == "second"));
    assert_eq!(broker.state(), BrokerState::NotStarted);
    drop(std::net::TcpListener::bind(("127.0.0.1", free)).unwrap());
    drop(taken);
    broker.start().unwrap();
}

/// BAPI-3, BUG-18: clients are told and closed, the port is free, and nothing of it runs on.
#[test]
fn shutdown_closes_clients_and_frees_the_port() {
    let mut broker = Broker::new(on_port(0));
    broker.start().unwrap();
    let address = broker.local_addr("default").unwrap();
    let client = ConnectOptions::new()
        .auto_reconnect(false)
        .connect(&format!("mqtt://{address}"))
        .unwrap();
    broker.shutdown(PATIENCE).unwrap();
    assert!(
        client
            .recv_timeout(PATIENCE)
            .is_err_and(|error| !error.is_timeout())
    );
    drop(std::net::TcpListener::bind(address).unwrap());
}

/// BAPI-3, BAPI-5: dropping shuts down; several brokers live beside each other in one process.
#[test]
fn brokers_do_not_know_of_each_other() {
    let start = || {
        let mut broker = Broker::new(on_port(0));
        broker.start().unwrap();
        broker
    };
    let (first, second) = (start(), start());
    let connect = |broker: &Broker| {
        let url = format!("mqtt://{}", broker.local_addr("default").unwrap());
        ConnectOptions::new()
            .client_id("same")
            .connect(&url)
            .unwrap()
    };
    let (one, other) = (connect(&first), connect(&second));
    one.subscribe([("t", QoS::AtLeastOnce)]).unwrap();
    other.publish("t", "not for you", QoS::AtLeastOnce).unwrap();
    one.publish("t", "for you", QoS::AtLeastOnce).unwrap();
    assert_eq!(
        one.recv_timeout(PATIENCE).unwrap().payload().as_ref(),
        b"for you"
    );
    let address = first.local_addr("default").unwrap();
    drop(first);
    drop(std::net::TcpListener::bind(address).unwrap());
    other.ping(PATIENCE).unwrap();
}

/// URL-7, MSG-9: the same bytes without a port, between threads of a process.
#[test]
fn mem_listeners_serve_clients_of_the_process() {
    let name = format!("embed{}", unique());
    let mut broker = Broker::new(
        Config::parse(&format!(
            "listeners: {{inside: {{type: mem, bind: {name}}}}}"
        ))
        .unwrap(),
    );
    broker.start().unwrap();
    let client = ConnectOptions::new()
        .connect(&format!("mem://{name}"))
        .unwrap();
    client.subscribe([("m/+", QoS::ExactlyOnce)]).unwrap();
    client.publish("m/a", "inside", QoS::ExactlyOnce).unwrap();
    assert_eq!(
        client.recv_timeout(PATIENCE).unwrap().payload().as_ref(),
        b"inside"
    );
}

/// BAPI-6: what the context tells and does.
#[test]
fn the_context_publishes_and_shows_what_there_is() {
    let mut broker = Broker::new(on_port(0));
    broker.start().unwrap();
    let context = broker.context().unwrap();
    let client = ConnectOptions::new()
        .client_id("seen")
        .keep_alive(Duration::from_secs(33))
        .connect(&format!("mqtt://{}", broker.local_addr("default").unwrap()))
        .unwrap();
    client.subscribe([("c/#", QoS::AtLeastOnce)]).unwrap();
    context
        .publish("c/retained", "kept", QoS::AtLeastOnce, true)
        .unwrap();
    assert_eq!(client.recv_timeout(PATIENCE).unwrap().topic(), "c/retained");
    context
        .broadcast_message("c/live", "x".into(), QoS::AtMostOnce)
        .unwrap();
    assert_eq!(client.recv_timeout(PATIENCE).unwrap().topic(), "c/live");
    context
        .retain_message("c/quiet", "y".into(), QoS::AtMostOnce)
        .unwrap();
    let retained = context.retained("c/#").unwrap();
    let topics: Vec<_> = retained
        .iter()
        .map(|message| message.topic.as_str())
        .collect();
    assert_eq!(topics, ["c/quiet", "c/retained"]);
    assert!(context.retained_messages().len() >= 2);
    let session = context.get_session("seen").unwrap();
    assert_eq!(
        (session.keep_alive, session.connected, session.user_name),
        (33, true, None)
    );
    assert_eq!(&*session.listener, "default");
    assert_eq!(context.sessions().len(), 1);
    assert_eq!(context.subscriptions()[0].filter, "c/#");
    context
        .add_subscription("seen", "added", QoS::AtMostOnce)
        .unwrap();
    context
        .publish("added", "z", QoS::AtMostOnce, false)
        .unwrap();
    assert_eq!(client.recv_timeout(PATIENCE).unwrap().topic(), "added");
    assert_eq!(context.stats().unwrap().clients_connected, 1);
    assert!(context.config().sys_interval.is_zero());
    assert!(context.disconnect_client("seen").unwrap());
    broker.shutdown(PATIENCE).unwrap();
    assert!(context.stats().is_err());
}

/// PLG-13, PLG-14, PLG-12, PLG-15, MSG-8: each event with what belongs to it, in order, and `close` at the end.
#[test]
fn plugins_hear_of_every_event() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut broker = Broker::new(on_port(0)).plugin(Box::new(Listener(Arc::clone(&heard))));
    broker.start().unwrap();
    assert!(broker.plugin_names().contains(&"listener".to_owned()));
    let client = ConnectOptions::new()
        .client_id("ann")
        .connect(&format!("mqtt://{}", broker.local_addr("default").unwrap()))
        .unwrap();
    client.subscribe([("p/+", QoS::AtLeastOnce)]).unwrap();
    client.publish("p/a", "1", QoS::AtLeastOnce).unwrap();
    client
        .publish(
            "p/b",
            "2",
            PublishOptions::new().qos(QoS::AtLeastOnce).retain(true),
        )
        .unwrap();
    client.unsubscribe(["p/+"]).unwrap();
    client.disconnect().unwrap();
    eventually("the disconnection is heard of", || {
        let heard = heard.lock().unwrap();
        if heard.iter().any(|event| event == "disconnected ann") {
            Ok(())
        } else {
            Err(format!("{heard:?}"))
        }
    });
    broker.shutdown(PATIENCE).unwrap();
    let heard = heard.lock().unwrap();
    let without_packets: Vec<_> = heard
        .iter()
        .filter(|event| !event.starts_with("packet"))
        .map(String::as_str)
        .collect();
    assert_eq!(
        without_packets,
        [
            "pre start",
            "post start",
            "connected ann",
            "subscribed ann p/+ 1",
            "received ann p/a 1",
            "broadcast p/a",
            "received ann p/b 2",
            "retained p/b",
            "broadcast p/b",
            "unsubscribed ann p/+",
            "disconnected ann",
            "pre shutdown",
            "post shutdown",
            "close",
        ]
    );
    for packet in [
        "packet received Connect",
        "packet sent Connack",
        "packet received Subscribe",
        "packet sent Publish",
    ] {
        assert!(
            heard.iter().any(|event| event == packet),
            "{packet}: {heard:?}"
        );
    }
}

/// PLG-16: a plugin that panics or hangs stops nobody.
#[test]
fn a_plugin_that_panics_or_hangs_stops_nobody() {
    let hang = Arc::new(AtomicBool::new(true));
    let mut broker = Broker::new(on_port(0))
        .plugin(Box::new(Panics))
        .plugin(Box::new(Hangs(Arc::clone(&hang))));
    broker.start().unwrap();
    let url = format!("mqtt://{}", broker.local_addr("default").unwrap());
    for _ in 0..5 {
        let client = ConnectOptions::new().connect(&url).unwrap();
        client.subscribe([("x", QoS::AtLeastOnce)]).unwrap();
        client.publish("x", "goes on", QoS::AtLeastOnce).unwrap();
        assert_eq!(
            client.recv_timeout(PATIENCE).unwrap().payload().as_ref(),
            b"goes on"
        );
    }
    hang.store(false, Ordering::Relaxed);
}

/// PLG-2, PLG-3: authenticators and topic checks of the program's own.
#[test]
fn authenticators_and_authorizers_of_the_program_are_asked() {
    let mut broker = Broker::new(on_port(0))
        .authenticator(Arc::new(Door))
        .authorizer(Arc::new(Door));
    broker.start().unwrap();
    let url = format!("mqtt://{}", broker.local_addr("default").unwrap());
    let connect = |user: &str| {
        ConnectOptions::new()
            .auto_reconnect(false)
            .credentials(user.to_owned(), "any".to_owned())
            .connect(&url)
    };
    assert!(connect("stranger").is_err_and(|error| error.return_code().is_some()));
    let friend = connect("friend").unwrap();
    let granted = friend
        .subscribe([("open/#", QoS::AtLeastOnce), ("shut/#", QoS::AtLeastOnce)])
        .unwrap();
    assert!(!granted[0].is_error() && granted[1].is_error());
}

fn on_port(port: u16) -> Config {
    Config::parse(&format!(
        "listeners: {{default: {{bind: '127.0.0.1:{port}'}}}}\nsys_interval: 0"
    ))
    .unwrap()
}

/// Notes every event.
struct Listener(Arc<Mutex<Vec<String>>>);

impl Listener {
    fn note(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }
}

impl Plugin for Listener {
    fn name(&self) -> &str {
        "listener"
    }

    fn on_broker_pre_start(&mut self, _: &dyn PluginContext) {
        self.note("pre start");
    }

    fn on_broker_post_start(&mut self, _: &dyn PluginContext) {
        self.note("post start");
    }

    fn on_broker_pre_shutdown(&mut self, _: &dyn PluginContext) {
        self.note("pre shutdown");
    }

    fn on_broker_post_shutdown(&mut self, _: &dyn PluginContext) {
        self.note("post shutdown");
    }

    fn on_broker_client_connected(&mut self, _: &dyn PluginContext, client: &SessionInfo) {
        self.note(format!("connected {}", client.client_id));
    }

    fn on_broker_client_disconnected(&mut self, _: &dyn PluginContext, client: &SessionInfo) {
        self.note(format!("disconnected {}", client.client_id));
    }

    fn on_broker_client_subscribed(
        &mut self,
        _: &dyn PluginContext,
        client: &str,
        filter: &str,
        qos: QoS,
    ) {
        self.note(format!("subscribed {client} {filter} {}", qos.as_u8()));
    }

    fn on_broker_client_unsubscribed(&mut self, _: &dyn PluginContext, client: &str, filter: &str) {
        self.note(format!("unsubscribed {client} {filter}"));
    }

    fn on_broker_message_received(
        &mut self,
        _: &dyn PluginContext,
        client: &str,
        message: &Message,
    ) {
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        self.note(format!(
            "received {client} {} {payload}",
            message.topic.as_str()
        ));
    }

    fn on_broker_retained_message(
        &mut self,
        _: &dyn PluginContext,
        _: Option<&str>,
        message: &Message,
    ) {
        self.note(format!("retained {}", message.topic.as_str()));
    }

    fn on_broker_message_broadcast(
        &mut self,
        _: &dyn PluginContext,
        _: Option<&str>,
        message: &Message,
    ) {
        self.note(format!("broadcast {}", message.topic.as_str()));
    }

    fn on_mqtt_packet_sent(
        &mut self,
        _: &dyn PluginContext,
        packet: &hbmqtt::proto::packet::Packet,
        _: &SessionInfo,
    ) {
        self.note(format!("packet sent {}", name_of(packet)));
    }

    fn on_mqtt_packet_received(
        &mut self,
        _: &dyn PluginContext,
        packet: &hbmqtt::proto::packet::Packet,
        _: &SessionInfo,
    ) {
        self.note(format!("packet received {}", name_of(packet)));
    }

    fn close(&mut self) {
        self.note("close");
    }
}

fn name_of(packet: &hbmqtt::proto::packet::Packet) -> String {
    let text = format!("{packet:?}");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default()
        .to_owned()
}

struct Panics;

impl Plugin for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    fn on_broker_client_connected(&mut self, _: &dyn PluginContext, _: &SessionInfo) {
        panic!("a plugin that panics");
    }
}

struct Hangs(Arc<AtomicBool>);

impl Plugin for Hangs {
    fn name(&self) -> &str {
        "hangs"
    }

    fn on_broker_client_connected(&mut self, _: &dyn PluginContext, _: &SessionInfo) {
        while self.0.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}

/// Lets in whoever is called friend, to what is open.
struct Door;

impl Authenticate for Door {
    fn name(&self) -> &str {
        "door"
    }

    fn authenticate(&self, client: &ConnectInfo<'_>) -> Verdict {
        if client.user_name == Some("friend") {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}

impl Authorize for Door {
    fn name(&self) -> &str {
        "door"
    }

    fn authorize(&self, access: &Access<'_>) -> Verdict {
        if access.topic.starts_with("open/") {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}
