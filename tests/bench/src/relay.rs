//! A bare relay, the floor under every broker: the bytes of a publisher go to the subscribers of its topic as they are.
//! One thread. CONNECT and SUBSCRIBE are answered; a connection whose next packet is a PUBLISH is a source from then on, and
//! nothing it sends is looked at again. QoS 0 only.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, Layer, Received, Scratch};
use crate::fault::Fault;
use crate::frames::{self, Frame, next_frame};
use crate::poller::{Poller, Ready};
use crate::websocket;

/// Sinks of one topic, or of all topics.
struct Group {
    filter: Vec<u8>,
    sinks: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Role {
    Unknown,
    Sink,
    Source(usize),
}

struct Relay {
    poller: Poller,
    connections: Vec<Option<(Connection, Role)>>,
    groups: Vec<Group>,
    touched: BTreeSet<usize>,
    scratch: Scratch,
}

/// Listens on `plain`, `tls` and `websocket`, and relays until it is killed.
pub(crate) fn serve(
    plain: SocketAddr,
    tls: SocketAddr,
    websocket: SocketAddr,
    config: &Arc<rustls::ServerConfig>,
) -> Result<(), Fault> {
    let listeners = [
        TcpListener::bind(tls)?,
        TcpListener::bind(websocket)?,
        TcpListener::bind(plain)?,
    ];
    let poller = Poller::new()?;
    for (token, listener) in listeners.iter().enumerate() {
        poller.add(listener, token)?;
    }
    // The first tokens are the listeners'.
    let connections = listeners.iter().map(|_| None).collect();
    let (groups, touched, scratch) = (Vec::new(), BTreeSet::new(), Scratch::new());
    let mut relay = Relay {
        poller,
        connections,
        groups,
        touched,
        scratch,
    };
    let mut ready = Vec::new();
    loop {
        relay.poller.wait(&mut ready, Duration::from_secs(60))?;
        for &Ready {
            token,
            readable,
            writable,
        } in &ready
        {
            match listeners.get(token) {
                Some(listener) => relay.accept(listener, token, config)?,
                None => relay.serve_one(token, readable, writable)?,
            }
        }
        while let Some(token) = relay.touched.pop_first() {
            relay.flush(token)?;
        }
    }
}

impl Relay {
    fn accept(
        &mut self,
        listener: &TcpListener,
        token: usize,
        config: &Arc<rustls::ServerConfig>,
    ) -> Result<(), Fault> {
        let (socket, _) = listener.accept()?;
        // A handshake that fails concerns its client alone.
        if let Ok(connection) = handshake(socket, token, config) {
            connection.socket.set_nonblocking(true)?;
            let (token, has_early) = (self.connections.len(), connection.has_early);
            self.poller.add(&connection.socket, token)?;
            self.connections.push(Some((connection, Role::Unknown)));
            if has_early {
                self.serve_one(token, true, false)?;
            }
        }
        Ok(())
    }

    fn serve_one(&mut self, token: usize, readable: bool, writable: bool) -> Result<(), Fault> {
        // Taken out while its bytes go to others.
        let Some((mut connection, mut role)) = self.connections[token].take() else {
            return Ok(());
        };
        let mut received = Received::Something;
        if readable {
            let Self {
                scratch,
                groups,
                touched,
                connections,
                ..
            } = self;
            let mut replies = Vec::new();
            received = connection.receive_bytes(scratch, |bytes| {
                let mut used = 0;
                while !matches!(role, Role::Source(_))
                    && let Some((frame, size)) = next_frame(&bytes[used..])?
                {
                    role = answer(frame, token, groups, &mut replies)?;
                    used += if matches!(role, Role::Source(_)) {
                        0
                    } else {
                        size
                    };
                }
                if let Role::Source(group) = role {
                    let group = &groups[group];
                    let end = if group.takes_all() {
                        whole_frames(bytes, used)?
                    } else {
                        bytes.len()
                    };
                    for sink in &group.sinks {
                        if let Some(Some((sink_connection, _))) = connections.get_mut(*sink) {
                            sink_connection.send(&bytes[used..end])?;
                            touched.insert(*sink);
                        }
                    }
                    used = end;
                }
                Ok(used)
            })?;
            connection.send(&replies)?;
            touched.insert(token);
        }
        if writable {
            self.touched.insert(token);
        }
        if received != Received::End {
            self.connections[token] = Some((connection, role));
        }
        Ok(())
    }

    fn flush(&mut self, token: usize) -> Result<(), Fault> {
        let Some((connection, _)) = &mut self.connections[token] else {
            return Ok(());
        };
        let Ok(is_empty) = connection.flush() else {
            self.connections[token] = None;
            return Ok(());
        };
        if is_empty == connection.waits_for_room {
            connection.waits_for_room = !is_empty;
            self.poller
                .want_write(&connection.socket, token, !is_empty)?;
        }
        Ok(())
    }
}

impl Group {
    fn takes_all(&self) -> bool {
        self.filter.contains(&b'+')
    }
}

/// Where the last whole frame ends: several sources share a sink, so no frame may be torn.
fn whole_frames(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    while let Some((_, size)) = next_frame(&bytes[at..])? {
        at += size;
    }
    Ok(at)
}

fn handshake(
    mut socket: TcpStream,
    token: usize,
    config: &Arc<rustls::ServerConfig>,
) -> Result<Connection, Fault> {
    let layer = match token {
        0 => {
            let tls =
                rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
            let mut tls = rustls::Connection::from(tls);
            tls.set_buffer_limit(None);
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Layer::Tls(Box::new(tls))
        }
        1 => {
            websocket::accept(&mut socket)?;
            Layer::WebSocket(websocket::Framing::server())
        }
        _ => Layer::Plain,
    };
    Ok(Connection::new(socket, layer)?)
}

fn answer(
    frame: Frame<'_>,
    token: usize,
    groups: &mut Vec<Group>,
    replies: &mut Vec<u8>,
) -> Result<Role, Fault> {
    match frame.kind() {
        frames::CONNECT => {
            replies.extend_from_slice(&[frames::CONNACK, 2, 0, 0]);
            Ok(Role::Unknown)
        }
        // One filter.
        frames::SUBSCRIBE if frame.body.len() > 5 => {
            replies.extend_from_slice(&[frames::SUBACK, 3, frame.body[0], frame.body[1], 0]);
            let filter = frame.body[4..frame.body.len() - 1].to_vec();
            match groups.iter_mut().find(|group| group.filter == filter) {
                Some(group) => group.sinks.push(token),
                None => groups.push(Group {
                    filter,
                    sinks: vec![token],
                }),
            }
            Ok(Role::Sink)
        }
        frames::PUBLISH => {
            let topic = frame.publish(0)?.topic;
            let group = groups
                .iter()
                .position(|group| group.filter == topic || group.takes_all());
            Ok(Role::Source(
                group.ok_or(Fault::Wrong("a topic without sink"))?,
            ))
        }
        _ => Ok(Role::Unknown),
    }
}
