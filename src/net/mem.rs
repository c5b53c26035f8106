//! `mem://name`: connections inside the process, over a pair of Unix sockets, so that they behave as any other.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::socket::Socket;

/// Which names listen. A listener that stops takes its sender out; that wakes whoever waits in `accept`.
static LISTENERS: Mutex<Option<HashMap<String, Sender<Socket>>>> = Mutex::new(None);

/// Connections that wait to be accepted, per listener.
const BACKLOG: usize = 128;

/// Takes `name` until [`remove`].
pub(super) fn register(name: &str) -> io::Result<Receiver<Socket>> {
    let mut listeners = LISTENERS.lock();
    let listeners = listeners.get_or_insert_default();
    if listeners.contains_key(name) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let (sender, receiver) = bounded(BACKLOG);
    listeners.insert(name.to_owned(), sender);
    Ok(receiver)
}

pub(super) fn remove(name: &str) {
    if let Some(listeners) = &mut *LISTENERS.lock() {
        listeners.remove(name);
    }
}

// BLOCKS: while the listener's backlog is full, at most until the deadline.
pub(super) fn connect(name: &str, deadline: Instant) -> io::Result<Socket> {
    let sender = LISTENERS
        .lock()
        .as_ref()
        .and_then(|listeners| listeners.get(name).cloned());
    let sender = sender.ok_or(io::ErrorKind::ConnectionRefused)?;
    let (ours, theirs) = Socket::pair(name)?;
    match sender.send_deadline(theirs, deadline) {
        Ok(()) => Ok(ours),
        Err(error) if error.is_timeout() => Err(io::ErrorKind::TimedOut.into()),
        Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}
