//! Packets as a client sends them, valid for the state that the client is in, or nearly so.
//!
//! Names, topics and identifiers come from small sets, so that clients meet: they take each other's sessions over,
//! receive each other's messages, and acknowledge what is really in flight.

use crate::random::Random;

/// The version that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V31,
    V311,
    V5,
}

/// What a CONNECT says about what the client takes.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// Maximum Packet Size.
    pub(crate) largest: usize,
    /// Topic Alias Maximum.
    pub(crate) aliases: u16,
    /// Request Problem Information.
    pub(crate) problems: bool,
    /// It names the method of the fuzzer: AUTH may come before CONNACK.
    pub(crate) authenticates: bool,
}

/// The method of enhanced authentication that the fuzzer's broker has.
pub(crate) const METHOD: &str = "FUZZ";

const TOPICS: [&str; 14] = [
    "a",
    "b",
    "a/b",
    "a/c",
    "a/b/c",
    "/",
    "//",
    "a/",
    "/b",
    "$SYS/x",
    "$x",
    "\u{feff}",
    "denied/a",
    "a/\u{1F600}",
];
const FILTERS: [&str; 20] = [
    "a",
    "b",
    "#",
    "+",
    "a/#",
    "a/+",
    "+/b",
    "+/+",
    "/#",
    "$SYS/#",
    "$SYS/broker/uptime",
    "$share/g/a/#",
    "$share/g/#",
    "$share/h/+",
    "$share/g/+/b",
    "$share/g/a",
    "denied/#",
    "a/b/c",
    "a/b/#",
    "\u{feff}/#",
];
const WRONG_FILTERS: [&str; 10] = [
    "",
    "a/#/b",
    "#a",
    "a+",
    "$share",
    "$share/",
    "$share/g",
    "$share/g/",
    "$share/g+/a",
    "$share//a",
];
const WRONG_TOPICS: [&str; 4] = ["a/#", "+", "", "a\0"];

/// CONNECT, and what it says.
pub(crate) fn connect(random: &mut Random) -> (Vec<u8>, Terms) {
    let version = match random.below(8) {
        0 => Version::V31,
        1 | 2 => Version::V311,
        _ => Version::V5,
    };
    let mut terms = Terms {
        version,
        largest: usize::MAX,
        aliases: 0,
        problems: true,
        authenticates: false,
    };
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let mut body = Vec::new();
    string(&mut body, name.as_bytes());
    body.push(level);
    let clean = random.once_in(2);
    let will = random.once_in(4);
    let user = random.once_in(16);
    let mut flags = u8::from(clean) << 1;
    if will {
        flags |= 0x04 | (small(random, 3) << 3) | (small(random, 2) << 5);
    }
    if user {
        flags |= 0xC0;
    }
    body.push(flags);
    let keep_alive: u16 = if random.once_in(8) { u16::MAX } else { 0 };
    body.extend(keep_alive.to_be_bytes());
    if version == Version::V5 {
        let section = connect_properties(random, &mut terms);
        variable_bytes(&mut body, &section);
    }
    let id = match random.below(12) {
        0 => String::new(),
        1 => "x".repeat(random.below(30)),
        other => format!("c{}", other % 5),
    };
    string(&mut body, id.as_bytes());
    if will {
        if version == Version::V5 {
            let mut section = Vec::new();
            if random.once_in(2) {
                section.extend([0x18, 0, 0, 0, small(random, 3)]);
            }
            message_properties(random, &mut section);
            variable_bytes(&mut body, &section);
        }
        string(&mut body, topic(random).as_bytes());
        string(&mut body, &payload(random));
    }
    if user {
        string(&mut body, random.choose(&["u", "admin", ""]).as_bytes());
        string(&mut body, b"secret");
    }
    (packet(0x10, &body), terms)
}

fn connect_properties(random: &mut Random, terms: &mut Terms) -> Vec<u8> {
    let mut section = Vec::new();
    if random.once_in(2) {
        let seconds: u32 = *random.choose(&[0, 1, 2, 600, u32::MAX]);
        section.push(0x11);
        section.extend(seconds.to_be_bytes());
    }
    if random.once_in(4) {
        let maximum: u16 = *random.choose(&[1, 2, 5, u16::MAX]);
        section.push(0x21);
        section.extend(maximum.to_be_bytes());
    }
    if random.once_in(4) {
        let largest: u32 = *random.choose(&[1, 4, 15, 20, 30, 60, 200, u32::MAX]);
        terms.largest = largest as usize;
        section.push(0x27);
        section.extend(largest.to_be_bytes());
    }
    if random.once_in(3) {
        terms.aliases = *random.choose(&[0, 1, 2, 10, u16::MAX]);
        section.push(0x22);
        section.extend(terms.aliases.to_be_bytes());
    }
    if random.once_in(6) {
        section.extend([0x19, small(random, 2)]);
    }
    if random.once_in(4) {
        terms.problems = random.once_in(2);
        section.extend([0x17, u8::from(terms.problems)]);
    }
    user_properties(random, &mut section);
    if random.once_in(6) {
        terms.authenticates = true;
        let method = *random.choose(&[METHOD, METHOD, METHOD, "SCRAM-SHA-256", "none"]);
        section.push(0x15);
        string(&mut section, method.as_bytes());
        authentication_data(random, &mut section);
    }
    section
}

/// A packet of a client that is connected.
pub(crate) fn any(random: &mut Random, version: Version) -> Vec<u8> {
    match random.below(20) {
        0..=6 => publish(random, version),
        7..=9 => subscribe(random, version),
        10 => unsubscribe(random, version),
        11..=15 => acknowledgement(random, version),
        16 => vec![0xC0, 0],
        17 | 18 if version == Version::V5 => auth(random),
        17 | 18 => vec![0xC0, 0],
        _ if random.once_in(4) => connect(random).0,
        _ => disconnect(random, version),
    }
}

fn publish(random: &mut Random, version: Version) -> Vec<u8> {
    let qos = small(random, 3);
    let dup = if qos > 0 { small(random, 2) } else { 0 };
    let retain = u8::from(random.once_in(3));
    let mut body = Vec::new();
    let mut section = Vec::new();
    let mut name = topic(random);
    if version == Version::V5 {
        if random.once_in(3) {
            let alias: u16 = *random.choose(&[1, 1, 2, 3, 4, 16, 17, 0]);
            section.push(0x23);
            section.extend(alias.to_be_bytes());
            if random.once_in(2) {
                name = "";
            }
        }
        message_properties(random, &mut section);
    }
    string(&mut body, name.as_bytes());
    if qos > 0 {
        body.extend(packet_id(random).to_be_bytes());
    }
    if version == Version::V5 {
        variable_bytes(&mut body, &section);
    }
    body.extend(payload(random));
    packet(0x30 | (dup << 3) | (qos << 1) | retain, &body)
}

fn subscribe(random: &mut Random, version: Version) -> Vec<u8> {
    let mut body = packet_id(random).to_be_bytes().to_vec();
    if version == Version::V5 {
        let mut section = Vec::new();
        if random.once_in(3) {
            section.extend([0x0B, small(random, 5)]);
        }
        user_properties(random, &mut section);
        variable_bytes(&mut body, &section);
    }
    for _ in 0..=random.below(3) {
        let filter = filter(random);
        string(&mut body, filter.as_bytes());
        let mut options = small(random, 3);
        if version == Version::V5 {
            options |= small(random, 3) << 4 | small(random, 2) << 3;
            if !filter.starts_with("$share") || random.once_in(16) {
                options |= small(random, 2) << 2;
            }
        }
        body.push(options);
    }
    packet(0x82, &body)
}

fn unsubscribe(random: &mut Random, version: Version) -> Vec<u8> {
    let mut body = packet_id(random).to_be_bytes().to_vec();
    if version == Version::V5 {
        let mut section = Vec::new();
        user_properties(random, &mut section);
        variable_bytes(&mut body, &section);
    }
    for _ in 0..=random.below(3) {
        string(&mut body, filter(random).as_bytes());
    }
    packet(0xA2, &body)
}

fn acknowledgement(random: &mut Random, version: Version) -> Vec<u8> {
    let first = *random.choose(&[0x40, 0x40, 0x50, 0x62, 0x70]);
    let mut body = packet_id(random).to_be_bytes().to_vec();
    if version == Version::V5 && random.once_in(3) {
        let reason = match first {
            0x62 | 0x70 => *random.choose(&[0, 0x92]),
            _ => *random.choose(&[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        };
        body.push(reason);
        if random.once_in(2) {
            let mut section = Vec::new();
            reason_string(random, &mut section);
            user_properties(random, &mut section);
            variable_bytes(&mut body, &section);
        }
    }
    packet(first, &body)
}

fn disconnect(random: &mut Random, version: Version) -> Vec<u8> {
    let mut body = Vec::new();
    if version == Version::V5 && random.once_in(2) {
        body.push(*random.choose(&[0, 4, 0x80, 0x81, 0x82, 0x93, 0x97]));
        let mut section = Vec::new();
        if random.once_in(2) {
            section.extend([0x11, 0, 0, 0, small(random, 3)]);
        }
        reason_string(random, &mut section);
        user_properties(random, &mut section);
        variable_bytes(&mut body, &section);
    }
    packet(0xE0, &body)
}

/// AUTH: whether it may come now is up to what came before.
pub(crate) fn auth(random: &mut Random) -> Vec<u8> {
    let mut body = vec![*random.choose(&[0x18, 0x18, 0x19, 0x19, 0])];
    let mut section = Vec::new();
    section.push(0x15);
    string(
        &mut section,
        random.choose(&[METHOD, METHOD, METHOD, "none"]).as_bytes(),
    );
    authentication_data(random, &mut section);
    reason_string(random, &mut section);
    user_properties(random, &mut section);
    variable_bytes(&mut body, &section);
    packet(0xF0, &body)
}

fn authentication_data(random: &mut Random, section: &mut Vec<u8>) {
    if !random.once_in(6) {
        section.push(0x16);
        string(section, &[small(random, 6), random.byte()]);
    }
}

fn message_properties(random: &mut Random, section: &mut Vec<u8>) {
    if random.once_in(4) {
        section.extend([0x01, small(random, 2)]);
    }
    if random.once_in(4) {
        section.extend([0x02, 0, 0, 0, small(random, 4)]);
    }
    if random.once_in(6) {
        section.push(0x03);
        string(section, b"text/plain");
    }
    if random.once_in(6) {
        section.push(0x08);
        string(section, topic(random).as_bytes());
    }
    if random.once_in(6) {
        section.push(0x09);
        string(section, &payload(random));
    }
    user_properties(random, section);
}

fn user_properties(random: &mut Random, section: &mut Vec<u8>) {
    if random.once_in(6) {
        for _ in 0..random.below(5) {
            section.push(0x26);
            string(section, random.choose(&["a", "b", "", "\u{e9}"]).as_bytes());
            string(section, "v".repeat(random.below(20)).as_bytes());
        }
    }
}

fn reason_string(random: &mut Random, section: &mut Vec<u8>) {
    if random.once_in(3) {
        section.push(0x1F);
        string(section, b"because");
    }
}

fn topic(random: &mut Random) -> &'static str {
    if random.once_in(100) {
        random.choose::<&str>(&WRONG_TOPICS)
    } else {
        random.choose::<&str>(&TOPICS)
    }
}

fn filter(random: &mut Random) -> &'static str {
    if random.once_in(60) {
        random.choose::<&str>(&WRONG_FILTERS)
    } else {
        random.choose::<&str>(&FILTERS)
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(40) {
        0 => 3_000 + random.below(10_000),
        1..=4 => 0,
        _ => random.below(40),
    };
    vec![random.byte(); length]
}

/// The broker counts from 1, so these are often in flight.
fn packet_id(random: &mut Random) -> u16 {
    if random.once_in(50) {
        return u16::from_be_bytes([random.byte(), random.byte()]);
    }
    u16::from(small(random, 6)) + 1
}

fn small(random: &mut Random, below: u8) -> u8 {
    u8::try_from(random.below(below.into())).unwrap_or_default()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    variable_bytes(&mut bytes, body);
    bytes
}

/// A length of variable size, and the bytes.
fn variable_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend(bytes);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("short strings only");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}
