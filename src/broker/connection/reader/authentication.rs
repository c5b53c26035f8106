//! Re-authentication: AUTH from a client that is connected. Its other packets go on meanwhile.
//!
//! Source: MQTT 5.0 §4.12.1.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::Reader;
use crate::broker::auth::{AuthStep, ConnectInfo, Exchange};
use crate::broker::connection::End;
use crate::broker::connection::exchange::continuation;
use crate::broker::plugin::Event;
use crate::outbox::OutBuf;
use crate::proto::packet::auth::Auth;
use crate::proto::{PacketType, ProtocolError, ReasonCode, codec};

/// What a connection keeps of the method that it authenticated with.
#[derive(Debug)]
pub(super) struct Authentication {
    method: ByteString,
    address: Option<IpAddr>,
    /// The exchange that is under way.
    exchange: Option<Exchange>,
}

impl Authentication {
    pub(super) fn new(method: ByteString, address: Option<IpAddr>) -> Box<Self> {
        Box::new(Self {
            method,
            address,
            exchange: None,
        })
    }
}

impl Reader {
    /// AUTH came. Without a method in CONNECT there is none to go on with. [MQTT-4.12.0-6]
    #[inline(never)]
    pub(super) fn on_auth(&mut self, auth: &Auth) -> Result<(), End> {
        let Some(mut own) = self.authentication.take() else {
            return Err(ProtocolError::UnexpectedAuth.into());
        };
        let result = self.authenticate_again(&mut own, auth);
        self.authentication = Some(own);
        result
    }

    fn authenticate_again(&self, own: &mut Authentication, auth: &Auth) -> Result<(), End> {
        // [MQTT-4.12.1-1]
        if auth.properties.authentication_method.as_ref() != Some(&own.method) {
            return Err(refused(
                ReasonCode::ProtocolError,
                "the authentication method must stay the same",
            ));
        }
        let mut info = ConnectInfo::new(&self.client_id, &self.listener.name, self.version());
        info.user_name = self.user_name.as_deref();
        info.address = own.address;
        let mut exchange = match (auth.reason, own.exchange.take()) {
            (ReasonCode::ReAuthenticate, None) => {
                self.chain.exchange(&own.method, &info).ok_or_else(|| {
                    refused(
                        ReasonCode::BadAuthenticationMethod,
                        "the authentication method is not supported any more",
                    )
                })?
            }
            (ReasonCode::ContinueAuthentication, Some(exchange)) => exchange,
            _ => return Err(ProtocolError::UnexpectedAuth.into()),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread of the connection reads its own clock"
        )]
        let now = Instant::now();
        let data = auth.properties.authentication_data.as_deref();
        let (step, delay) = exchange.step(data, now);
        if !delay.is_zero() {
            crate::thread::rest(delay);
        }
        match step {
            AuthStep::Continue(data) => {
                own.exchange = Some(exchange);
                self.send_auth(&own.method, ReasonCode::ContinueAuthentication, Some(data))
            }
            AuthStep::Success { user, data } => {
                if user.as_deref() != self.user_name.as_deref() {
                    return Err(refused(
                        ReasonCode::NotAuthorized,
                        "the user must stay the same",
                    ));
                }
                info.user_is_proven = true;
                if self.chain.accept_proven(&info).result.is_err() {
                    return Err(refused(ReasonCode::NotAuthorized, FAILED));
                }
                log::info!("{} authenticated again", self.client_id.escape_debug());
                self.send_auth(&own.method, ReasonCode::Success, data)
            }
            // [MQTT-4.12.1-2]
            AuthStep::Failed(reason) => {
                let reason = Some(reason)
                    .filter(|reason| reason.is_error())
                    .filter(|reason| reason.is_allowed_in(PacketType::Disconnect));
                Err(refused(reason.unwrap_or(ReasonCode::NotAuthorized), FAILED))
            }
        }
    }

    fn send_auth(
        &self,
        method: &ByteString,
        reason: ReasonCode,
        data: Option<Bytes>,
    ) -> Result<(), End> {
        let packet = continuation(reason, method, data);
        let mut out = OutBuf::default();
        let encoded = codec::encode(&packet, self.version(), out.bytes_mut());
        if encoded.is_err() || out.len() > self.maximum_packet_size {
            return Err(refused(
                ReasonCode::PacketTooLarge,
                "the AUTH is larger than the client takes",
            ));
        }
        if let Some(client) = self.client.clone() {
            let packet = Box::new(packet);
            self.services
                .plugins
                .fire(Event::PacketSent { packet, client });
        }
        self.services.metrics.bytes_sent.add(out.len() as u64);
        self.services.metrics.messages_sent.increment();
        let _ = self.outbox.send(&mut out);
        Ok(())
    }
}

fn refused(reason: ReasonCode, text: &'static str) -> End {
    End::Refused { reason, text }
}

const FAILED: &str = "the authentication failed";
