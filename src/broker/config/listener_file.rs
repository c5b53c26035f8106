//! The section `listeners`, with what entries inherit from `default` and the slips that HBMQTT's examples invite.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::file::{auth, set};
use super::{
    AddressRange, BindAddress, ClientCert, Config, ListenerConfig, ListenerKind, TlsConfig,
};
use crate::yaml::{Entry, Field, Section, Value};

/// The listeners of the file, `None` if it has no such section.
pub(super) fn listeners(root: &Section<'_>, config: &Config) -> Option<Vec<ListenerConfig>> {
    let field = root.field("listeners")?;
    let section = field.section()?;
    let default = section.all("default").pop();
    let template = default.map_or(&[][..], |entry| entry.value.entries());
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for entry in section.entries() {
        let is_default = entry.key == "default";
        // Of entries with one name the last counts.
        let is_repeated = listeners.iter().position(|known| known.name == entry.key);
        let Some(mut own) = section.field_of(entry).section() else {
            continue;
        };
        if !is_default {
            own = own.inheriting(template, "listeners.default");
        }
        let Some(listener) = listener(own, entry, config) else {
            continue;
        };
        if let Some(index) = is_repeated {
            section
                .field_of(entry)
                .warning("the listener is given more than once; this last one counts");
            listeners.remove(index);
        }
        listeners.push(listener);
    }
    let only_templates = section.entries().iter().all(|entry| entry.key == "default");
    if listeners.is_empty() && only_templates {
        field.problem("no listener has a 'bind': nobody could connect");
    }
    Some(listeners)
}

/// One listener; `None` for a `default` that only is a template, and for one whose address is wrong.
fn listener(section: Section<'_>, entry: &Entry, config: &Config) -> Option<ListenerConfig> {
    let mut listener = ListenerConfig {
        name: entry.key.clone(),
        max_qos: config.max_qos,
        max_topic_alias: config.limits.max_topic_alias,
        ..ListenerConfig::default()
    };
    set!(listener.kind, section.field("type"), kind);
    listener.max_connections = section.field("max-connections").and_then(|field| {
        let number: i128 = field.integer(i128::MIN..=i128::MAX)?;
        usize::try_from(number).ok().filter(|number| *number > 0)
    });
    listener.tls = tls(&section, listener.kind);
    certified_user(&section, &mut listener);
    set!(
        listener.use_username_as_clientid,
        section.field("use-username-as-clientid"),
        Field::bool
    );
    listener.mount_point = section
        .field("mount-point")
        .and_then(|field| mount_point(&field));
    set!(listener.max_qos, section.field("max-qos"), Field::qos);
    let alias = |field: &Field<'_>| field.integer(0..=65_535);
    set!(
        listener.max_topic_alias,
        section.field("max-topic-alias"),
        alias
    );
    set!(
        listener.allowed_origins,
        section.field("allowed-origins"),
        Field::texts
    );
    set!(listener.proxy, section.field("proxy"), proxy);
    listener.auth = section
        .field("auth")
        .and_then(|field| field.section())
        .map(auth);

    let bind = section.own("bind");
    let address = match &bind {
        Some(field) => bind_address(field, listener.kind, listener.tls.is_some()),
        None if entry.key == "default" => None,
        None => {
            let path = section.path().to_owned();
            section
                .found()
                .problem(entry.key_id, &path, "'bind' is missing");
            None
        }
    };
    section.finish_with(|entry| match entry.value.value {
        Value::Map(_) => Some(format!(
            "it holds a section of its own: is the indentation wrong? A listener '{}' stands directly under 'listeners'",
            entry.key
        )),
        _ => None,
    });
    listener.bind = address?;
    Some(listener)
}

fn kind(field: &Field<'_>) -> Option<ListenerKind> {
    if let Some(text) = field.node().text() {
        let plain = match text.to_ascii_lowercase().as_str() {
            "tls" | "ssl" | "tcps" | "mqtts" => Some("tcp"),
            "wss" => Some("ws"),
            _ => None,
        };
        if let Some(plain) = plain {
            field.problem(format!(
                "'{text}' is written as 'type: {plain}' with 'ssl: on'"
            ));
            return None;
        }
    }
    field.choice(&[
        ("tcp", ListenerKind::Tcp),
        ("ws", ListenerKind::Ws),
        ("unix", ListenerKind::Unix),
        ("mem", ListenerKind::Mem),
    ])
}

fn tls(section: &Section<'_>, kind: ListenerKind) -> Option<TlsConfig> {
    let ssl = section.field("ssl");
    let (capath, misplaced) = capath(section);
    let file = |key| section.field(key).and_then(|field| field.path());
    let (certfile, keyfile) = (file("certfile"), file("keyfile"));
    let (cafile, crlfile) = (file("cafile"), file("crlfile"));
    let cadata = section
        .field("cadata")
        .and_then(|field| field.text())
        .or(misplaced);
    let has_authority = cafile.is_some() || capath.is_some() || cadata.is_some();
    let client_cert = client_cert(section, has_authority);

    let Some(ssl) = ssl.filter(|field| field.bool() == Some(true)) else {
        if let Some(field) = section.own("certfile") {
            field.warning("not used, because 'ssl' is off");
        }
        return None;
    };
    if !matches!(kind, ListenerKind::Tcp | ListenerKind::Ws) {
        ssl.problem(format!("a listener of type {kind} has no TLS"));
        return None;
    }
    let (Some(certfile), Some(keyfile)) = (certfile, keyfile) else {
        // The words of HBMQTT.
        ssl.problem("'certfile' or 'keyfile' configuration parameter missing");
        return None;
    };
    Some(TlsConfig {
        certfile,
        keyfile,
        cafile,
        capath,
        cadata,
        client_cert,
        crlfile,
    })
}

/// `capath`, and what is meant to be `cadata`: HBMQTT's documentation writes `capath` twice, the second time with
/// "certificate data".
fn capath(section: &Section<'_>) -> (Option<PathBuf>, Option<String>) {
    let all = section.all("capath");
    if let [.., first, last] = all[..] {
        let key = section.path_of(&last.key);
        let is_data = section
            .field_of(last)
            .text()
            .is_some_and(|text| text.contains("-----BEGIN") || text.contains(char::is_whitespace));
        if is_data {
            let message = "the key is given twice; did you mean cadata? It is read as that, since it does not look like a path";
            section.found().warning(last.key_id, &key, message);
            return (
                section.field_of(first).path(),
                section.field_of(last).text(),
            );
        }
        let message = "the key is given more than once; this last one counts. Did you mean cadata?";
        section.found().warning(last.key_id, &key, message);
        return (section.field_of(last).path(), None);
    }
    (section.field("capath").and_then(|field| field.path()), None)
}

fn client_cert(section: &Section<'_>, has_authority: bool) -> ClientCert {
    let written = section.field("client-cert");
    let required = section.field("require-certificate");
    let policy = match (&written, &required) {
        (Some(field), _) => field.choice(&[
            ("none", ClientCert::None),
            ("optional", ClientCert::Optional),
            ("required", ClientCert::Required),
        ]),
        (None, Some(field)) => field
            .bool()
            .and_then(|yes| yes.then_some(ClientCert::Required)),
        (None, None) => None,
    };
    let policy = policy.unwrap_or(if has_authority {
        ClientCert::Optional
    } else {
        ClientCert::None
    });
    if let (Some(field), false, true) = (
        written.or(required),
        has_authority,
        policy != ClientCert::None,
    ) {
        field.problem("needs 'cafile', 'capath' or 'cadata': who signs the clients' certificates?");
    }
    policy
}

fn certified_user(section: &Section<'_>, listener: &mut ListenerConfig) {
    set!(
        listener.use_identity_as_username,
        section.field("use-identity-as-username"),
        Field::bool
    );
    set!(
        listener.use_subject_as_username,
        section.field("use-subject-as-username"),
        Field::bool
    );
    let asks = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_cert != ClientCert::None);
    for key in ["use-identity-as-username", "use-subject-as-username"] {
        let Some(field) = section
            .field(key)
            .filter(|field| field.node().bool() == Some(true))
        else {
            continue;
        };
        if !asks {
            field.problem(
                "needs 'ssl: on' and client certificates ('cafile', 'capath' or 'cadata')",
            );
        } else if listener.use_identity_as_username && listener.use_subject_as_username {
            field
                .problem("use-identity-as-username and use-subject-as-username exclude each other");
        }
    }
}

fn mount_point(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.contains(['+', '#', '\0']) || text.starts_with('$') {
        field.problem("a mount point has no wildcards and does not begin with '$'");
        return None;
    }
    (!text.is_empty()).then_some(text)
}

fn proxy(field: &Field<'_>) -> Option<Vec<AddressRange>> {
    let range = |item: &Field<'_>| match item.text()?.parse() {
        Ok(range) => Some(range),
        Err(message) => {
            item.problem(message);
            None
        }
    };
    field.items()?.iter().map(range).collect()
}

fn bind_address(field: &Field<'_>, kind: ListenerKind, tls: bool) -> Option<BindAddress> {
    let text = field.text()?;
    let text = text.trim();
    if text.is_empty() {
        field.problem("expected an address");
        return None;
    }
    match kind {
        ListenerKind::Unix => Some(BindAddress::Unix(
            text.strip_prefix("unix://").unwrap_or(text).into(),
        )),
        ListenerKind::Mem => Some(BindAddress::Mem(
            text.strip_prefix("mem://").unwrap_or(text).to_owned(),
        )),
        ListenerKind::Tcp | ListenerKind::Ws => {
            let default_port = match (kind, tls) {
                (ListenerKind::Ws, false) => 80,
                (ListenerKind::Ws, true) => 443,
                (_, false) => 1883,
                (_, true) => 8883,
            };
            match host_and_port(text, default_port) {
                Ok((host, port)) => Some(BindAddress::Tcp { host, port }),
                Err(message) => {
                    field.problem(message);
                    None
                }
            }
        }
    }
}

/// `host:port`, `[v6]:port`, `:port`, `port` or `host`. Without a host: all IPv4 interfaces.
fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let number = |port: &str| {
        port.parse::<u16>()
            .map_err(|_| format!("'{port}' is no port: expected 0 to 65535"))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or("the closing bracket is missing")?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| format!("'{host}' is no IPv6 address"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host.to_owned(), number(port)?)),
            None if after.is_empty() => Ok((host.to_owned(), default_port)),
            None => Err(format!(
                "expected ':' and a port after the bracket, found '{after}'"
            )),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text.to_owned(), default_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            return Err(format!(
                "'{text}' has too many colons; write an IPv6 address in brackets: '[::1]:1883'"
            ));
        }
        Some((host, port)) => (host, number(port)?),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => ("", number(text)?),
        None => (text, default_port),
    };
    if let Some(bad) = host.find(|c: char| c.is_whitespace() || c == '/') {
        return Err(format!(
            "'{host}' is no host: unexpected '{}'",
            &host[bad..]
        ));
    }
    let host = if host.is_empty() || host == "*" {
        "0.0.0.0"
    } else {
        host
    };
    Ok((host.to_owned(), port))
}
