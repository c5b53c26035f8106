//! Enhanced authentication between CONNECT and CONNACK: AUTH back and forth, under the deadline of the handshake.
//!
//! ```text
//!   CONNECT method, data ───►
//!                        ◄─── AUTH 0x18 method, data     as often as the method wants
//!       AUTH 0x18 method, data ───►
//!                        ◄─── CONNACK method, data
//! ```
//!
//! Source: MQTT 5.0 §4.12.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::handshake::{Denied, Newcomer, refused};
use super::read_buffer::{ReadBuffer, ReadError};
use crate::broker::auth::{AuthChain, AuthStep};
use crate::broker::plugin::Event;
use crate::outbox::OutBuf;
use crate::proto::packet::auth::{Auth, AuthProperties};
use crate::proto::packet::connect::Connect;
use crate::proto::{Packet, PacketType, ReasonCode, codec};

/// What an exchange has proved.
#[derive(Debug)]
pub(super) struct Proof {
    /// Who the client is; `None` = anonymous.
    pub(super) user: Option<ByteString>,
    /// Authentication Data for CONNACK.
    pub(super) data: Option<Bytes>,
}

impl Newcomer<'_> {
    /// Runs the authentication method that CONNECT names. `None`: it names none.
    ///
    /// # Blocking
    /// On the method; on the client until the deadline of the handshake.
    pub(super) fn prove(
        &self,
        connect: &Connect,
        chain: &AuthChain,
        buffer: &mut ReadBuffer,
    ) -> Result<Option<Proof>, Denied> {
        let properties = &connect.properties;
        let Some(method) = &properties.authentication_method else {
            return Ok(None);
        };
        let user_name = connect.user_name.as_deref();
        let info = self.connect_info(connect.version, &connect.client_id, user_name);
        // [MQTT-4.12.0-1]
        let mut exchange = chain.exchange(method, &info).ok_or_else(|| {
            refused(
                ReasonCode::BadAuthenticationMethod,
                "the authentication method is not supported",
            )
        })?;
        let mut data = properties.authentication_data.clone();
        loop {
            #[expect(
                clippy::disallowed_methods,
                reason = "the thread of the connection reads its own clock"
            )]
            let (step, delay) = exchange.step(data.as_deref(), Instant::now());
            if !delay.is_zero() {
                crate::thread::rest(delay);
            }
            match step {
                AuthStep::Continue(next) => self.challenge(connect, method, next)?,
                AuthStep::Success { user, data } => {
                    let user = user.map(ByteString::from);
                    return Ok(Some(Proof { user, data }));
                }
                // [MQTT-4.12.0-4]
                AuthStep::Failed(reason) => {
                    let reason = Some(reason)
                        .filter(|reason| reason.is_error())
                        .filter(|reason| reason.is_allowed_in(PacketType::Connack));
                    let reason = reason.unwrap_or(ReasonCode::NotAuthorized);
                    return Err(refused(reason, "the authentication failed").into());
                }
            }
            data = self.read_answer(connect, method, buffer)?;
        }
    }

    /// Sends AUTH. [MQTT-4.12.0-2]
    fn challenge(&self, connect: &Connect, method: &ByteString, data: Bytes) -> Result<(), Denied> {
        let packet = continuation(ReasonCode::ContinueAuthentication, method, Some(data));
        let mut out = OutBuf::default();
        let encoded = codec::encode(&packet, connect.version, out.bytes_mut());
        let limit = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if encoded.is_err() || u32::try_from(out.len()).is_ok_and(|size| size > limit) {
            return Err(refused(
                ReasonCode::PacketTooLarge,
                "the AUTH is larger than the client takes",
            )
            .into());
        }
        let plugins = &self.services.plugins;
        if plugins.wants_packets() {
            let client = Arc::new(self.early_info(connect));
            let packet = Box::new(packet);
            plugins.fire(Event::PacketSent { packet, client });
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.services.metrics.messages_sent.increment();
        let _ = self.outbox.send(&mut out);
        Ok(())
    }

    /// Waits for the client's AUTH, and gives its Authentication Data.
    fn read_answer(
        &self,
        connect: &Connect,
        method: &ByteString,
        buffer: &mut ReadBuffer,
    ) -> Result<Option<Bytes>, Denied> {
        let out_of_turn = |text| Denied::from(refused(ReasonCode::ProtocolError, text));
        let decoder = self.decoder(connect.version);
        loop {
            // [MQTT-3.1.2-30]
            if buffer
                .bytes()
                .first()
                .is_some_and(|first| !matches!(first >> 4, AUTH | DISCONNECT))
            {
                return Err(out_of_turn(
                    "only AUTH or DISCONNECT may come before CONNACK",
                ));
            }
            if let Some(frame) = decoder.frame(buffer.bytes()).map_err(malformed)? {
                let packet = buffer.take(frame.total_bytes as usize);
                let packet = decoder.decode(frame, &packet).map_err(malformed)?;
                self.services.metrics.messages_received.increment();
                let plugins = &self.services.plugins;
                if plugins.wants_packets() {
                    let client = Arc::new(self.early_info(connect));
                    let packet = Box::new(packet.clone());
                    plugins.fire(Event::PacketReceived { packet, client });
                }
                return match packet {
                    Packet::Auth(auth) if auth.reason != ReasonCode::ContinueAuthentication => {
                        Err(out_of_turn("an AUTH before CONNACK continues"))
                    }
                    Packet::Auth(auth) => {
                        if auth.properties.authentication_method.as_ref() != Some(method) {
                            return Err(out_of_turn(
                                "the authentication method must stay the same",
                            ));
                        }
                        Ok(auth.properties.authentication_data)
                    }
                    _ => Err(Denied::Gone(ReadError::Closed)),
                };
            }
            let read = buffer.read_until(
                &self.socket,
                &self.outbox,
                &self.services.spares,
                self.deadline,
            );
            read.map_err(Denied::Gone)?;
        }
    }
}

/// AUTH from the broker. [MQTT-4.12.0-5]
pub(super) fn continuation(reason: ReasonCode, method: &ByteString, data: Option<Bytes>) -> Packet {
    Packet::Auth(Box::new(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.clone()),
            authentication_data: data,
            ..AuthProperties::default()
        },
    }))
}

fn malformed(error: crate::proto::DecodeError) -> Denied {
    let reason = Some(error.reason()).filter(|reason| reason.is_allowed_in(PacketType::Connack));
    let reason = reason.unwrap_or(ReasonCode::MalformedPacket);
    refused(reason, "malformed AUTH or DISCONNECT").into()
}

/// Packet types, as the first byte of a packet has them.
const AUTH: u8 = 15;
const DISCONNECT: u8 = 14;
