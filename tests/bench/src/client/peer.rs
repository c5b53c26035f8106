//! The bare peer: a server for one client that checks what comes and acknowledges it, or sends as fast as it can.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use super::Role;
use crate::connection::{Connection, Layer, Received, Scratch};
use crate::fault::Fault;
use crate::frames::{self, Frame, STAMP_BYTES, push_ack, read_stamp};
use crate::stamp::Stamp;

/// A peer that waits for its client.
pub(super) struct Bare {
    pub(super) address: SocketAddr,
    role: Role,
    thread: JoinHandle<Result<u64, Fault>>,
}

/// Starts the counterpart of a client in this role.
pub(super) fn start(role: Role, qos: u8) -> Result<Bare, Fault> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark has a few threads")]
    let thread = thread::spawn(move || {
        let (socket, _) = listener.accept()?;
        let mut connection = Connection::new(socket, Layer::Plain)?;
        match role {
            Role::Publish => take(&mut connection, qos),
            Role::Receive => give(&mut connection, qos),
        }
    });
    Ok(Bare {
        address,
        role,
        thread,
    })
}

impl Bare {
    /// Checks that all that the client published has come.
    pub(super) fn end(self, messages: u64) -> Result<(), Fault> {
        let failed = |_| Fault::Wrong("the bare peer failed");
        let came = self.thread.join().map_err(failed)??;
        match self.role {
            Role::Publish if came != messages => Err(Fault::Stalled {
                missing: messages.abs_diff(came),
            }),
            _ => Ok(()),
        }
    }
}

/// Checks and acknowledges messages until the client leaves: how many came.
fn take(connection: &mut Connection, qos: u8) -> Result<u64, Fault> {
    let (mut scratch, mut replies, mut due) = (Scratch::new(), Vec::new(), 0);
    loop {
        let received = connection.receive(&mut scratch, |frame| {
            if frame.kind() != frames::PUBLISH {
                answer(frame, &mut replies);
                return Ok(());
            }
            let message = frame.publish(qos)?;
            check(message.payload, &mut due)?;
            if qos > 0 {
                push_ack(&mut replies, frames::PUBACK, message.id);
            }
            Ok(())
        })?;
        if received == Received::End {
            return Ok(due);
        }
        connection.send(&replies)?;
        connection.flush()?;
        replies.clear();
    }
}

/// Sends messages as soon as the client has subscribed and until it leaves: how many left.
fn give(connection: &mut Connection, qos: u8) -> Result<u64, Fault> {
    let (mut scratch, mut replies) = (Scratch::new(), Vec::new());
    let mut is_wanted = false;
    while !is_wanted {
        let received = connection.receive(&mut scratch, |frame| {
            is_wanted |= frame.kind() == frames::SUBSCRIBE;
            answer(frame, &mut replies);
            Ok(())
        })?;
        if received == Received::End {
            return Ok(0);
        }
        connection.send(&replies)?;
        connection.flush()?;
        replies.clear();
    }
    let (mut sent, mut acknowledged) = (0, 0);
    let mut batch = Vec::new();
    loop {
        let window = if qos == 0 {
            FREELY
        } else {
            acknowledged + WINDOW
        };
        let end = window.min(sent + AT_ONCE);
        batch.clear();
        for number in sent..end {
            push_message(&mut batch, qos, number);
        }
        sent = sent.max(end);
        connection.send(&batch)?;
        if connection.flush().is_err() {
            return Ok(sent); // it left
        }
        if qos > 0 {
            let received = connection.receive(&mut scratch, |frame| {
                acknowledged += u64::from(frame.first == frames::PUBACK);
                Ok(())
            });
            if !matches!(received, Ok(Received::Something | Received::Nothing)) {
                return Ok(sent);
            }
        }
    }
}

/// Answers CONNECT, SUBSCRIBE and PINGREQ in MQTT 5.0, with the topic aliases that hbmqtt offers.
fn answer(frame: Frame<'_>, replies: &mut Vec<u8>) {
    match (frame.first, frame.body) {
        (frames::CONNECT, _) => {
            replies.extend_from_slice(&[frames::CONNACK, 6, 0, 0, 3, 0x22, 0, 16]);
        }
        (frames::SUBSCRIBE, [high, low, .., options]) => {
            replies.extend_from_slice(&[frames::SUBACK, 4, *high, *low, 0, options & 3]);
        }
        (PINGREQ, _) => replies.extend_from_slice(&[PINGRESP, 0]),
        _ => {}
    }
}

/// The payload ends the packet; the properties before it are of no interest.
fn check(properties_and_payload: &[u8], due: &mut u64) -> Result<(), Fault> {
    let at = properties_and_payload.len().saturating_sub(STAMP_BYTES);
    let came = read_stamp(properties_and_payload.get(at..).unwrap_or_default(), &[])?.number;
    if came != *due {
        return Err(Fault::OutOfTurn { due: *due, came });
    }
    *due += 1;
    Ok(())
}

/// A PUBLISH of MQTT 5.0 without properties.
fn push_message(out: &mut Vec<u8>, qos: u8, number: u64) {
    let id_bytes = if qos == 0 { 0 } else { 2 };
    let length = 2 + TOPIC.len() + id_bytes + 1 + STAMP_BYTES;
    out.extend_from_slice(&[
        frames::PUBLISH | qos << 1,
        length as u8,
        0,
        TOPIC.len() as u8,
    ]);
    out.extend_from_slice(TOPIC.as_bytes());
    if qos > 0 {
        out.extend_from_slice(&(1 + (number % WINDOW) as u16).to_be_bytes());
    }
    out.push(0);
    out.extend_from_slice(&Stamp { number, stream: 0 }.to_bytes());
}

pub(super) const TOPIC: &str = "bench/client";

const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;

/// Unacknowledged messages, as hbmqtt has them at most.
const WINDOW: u64 = 256;

const FREELY: u64 = u64::MAX;

/// Messages in one system call.
const AT_ONCE: u64 = 2048;
