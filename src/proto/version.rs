//! The protocol versions and what each one can carry: the home of version questions.

use std::fmt;
use std::str::FromStr;

/// A version of the MQTT protocol.
///
/// Outside `proto` and the two `handshake.rs` files, ask for an ability ([`has_properties`](Self::has_properties) and
/// its siblings) instead of comparing versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1, protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5.0, protocol name `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];

    /// The version that a CONNECT with this Protocol Name and Protocol Level asks for.
    ///
    /// Source: MQTT 5.0 §3.1.2.1, §3.1.2.2; MQTT 3.1.1 §3.1.2.1.
    #[must_use]
    pub fn from_wire(name: &[u8], level: u8) -> Option<Self> {
        match (name, level) {
            (b"MQIsdp", 3) => Some(Self::V31),
            (b"MQTT", 4) => Some(Self::V311),
            (b"MQTT", 5) => Some(Self::V5),
            _ => None,
        }
    }

    /// The newest version of those that have properties, or of those that have none: what is encoded for one is right
    /// for all of them.
    #[must_use]
    pub fn newest(with_properties: bool) -> Self {
        if with_properties {
            Self::V5
        } else {
            Self::V311
        }
    }

    /// The Protocol Name in CONNECT.
    #[must_use]
    pub fn protocol_name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// The Protocol Level (Protocol Version in 5.0) in CONNECT.
    #[must_use]
    pub fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// Packets carry properties.
    #[must_use]
    pub fn has_properties(self) -> bool {
        self == Self::V5
    }

    /// Acknowledgements and DISCONNECT carry a Reason Code.
    #[must_use]
    pub fn has_reason_codes(self) -> bool {
        self == Self::V5
    }

    /// The server may send DISCONNECT.
    #[must_use]
    pub fn has_server_disconnect(self) -> bool {
        self == Self::V5
    }

    /// A SUBACK may say that a subscription failed. MQTT 3.1 has no code for it.
    #[must_use]
    pub fn has_suback_failure(self) -> bool {
        self != Self::V31
    }

    /// CONNACK says whether the server kept a session. MQTT 3.1 does not.
    #[must_use]
    pub fn has_session_present(self) -> bool {
        self != Self::V31
    }

    /// The client may leave the Client Identifier empty. MQTT 3.1 wants 1 to 23 characters.
    #[must_use]
    pub fn allows_empty_client_id(self) -> bool {
        self != Self::V31
    }

    /// A password may be sent without a user name.
    #[must_use]
    pub fn allows_password_without_user_name(self) -> bool {
        self == Self::V5
    }

    /// SUBSCRIBE has options beside the QoS: No Local, Retain As Published, Retain Handling.
    #[must_use]
    pub fn has_subscription_options(self) -> bool {
        self == Self::V5
    }

    /// User Name and Password may be missing at the end of CONNECT although their flags are set.
    ///
    /// Source: MQTT 3.1 §3.1.
    #[must_use]
    pub fn may_omit_credentials(self) -> bool {
        self == Self::V31
    }

    /// AUTH exists.
    #[must_use]
    pub fn has_auth(self) -> bool {
        self == Self::V5
    }

    /// A Variable Byte Integer must take no more bytes than its value needs. The older versions do not say so, and
    /// small senders write the Remaining Length with a fixed number of bytes.
    ///
    /// Source: MQTT 5.0 §1.5.5 [MQTT-1.5.5-1].
    #[must_use]
    pub fn wants_shortest_lengths(self) -> bool {
        self == Self::V5
    }

    /// SUBSCRIBE, UNSUBSCRIBE and PUBREL may be sent again, with the DUP flag.
    ///
    /// Source: MQTT 3.1 §2.1, §3.6.
    #[must_use]
    pub fn has_dup_in_requests(self) -> bool {
        self == Self::V31
    }

    /// Bits that the version does not use must be 0. MQTT 3.1 leaves them open.
    #[must_use]
    pub fn checks_reserved_bits(self) -> bool {
        self != Self::V31
    }

    /// Delivery flows have a window (Receive Maximum) that the peer announces.
    #[must_use]
    pub fn has_receive_maximum(self) -> bool {
        self == Self::V5
    }
}

/// A version as people write it: `3.1`, `31`, `3`; `3.1.1`, `311`, `4`; `5.0`, `5`; with or without `mqttv` before it.
impl FromStr for ProtocolVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        match text.trim_start_matches("mqttv") {
            "3" | "3.1" | "31" => Ok(Self::V31),
            "4" | "3.1.1" | "311" => Ok(Self::V311),
            "5" | "5.0" => Ok(Self::V5),
            _ => Err(UnknownVersion),
        }
    }
}

/// The text names no version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownVersion;

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 3.1, 3.1.1 or 5.0")
    }
}

impl std::error::Error for UnknownVersion {}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V31 => "MQTT 3.1",
            Self::V311 => "MQTT 3.1.1",
            Self::V5 => "MQTT 5.0",
        })
    }
}
