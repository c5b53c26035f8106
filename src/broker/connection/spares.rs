//! Memory for connections through which data flows, used again: all of a broker's connections share a few read buffers and
//! lists of packets, and a connection that is silent holds none.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::broker::router::command::Inbound;

/// Read buffers and lists of packets that wait for their next use. Taking and giving never wait.
#[derive(Debug)]
pub(crate) struct Spares {
    buffers: Shelf<Vec<u8>>,
    lists: Shelf<Vec<Inbound>>,
}

#[derive(Debug)]
struct Shelf<T> {
    give: Sender<T>,
    take: Receiver<T>,
}

impl<T> Shelf<T> {
    fn new() -> Self {
        let (give, take) = bounded(PLACES);
        Self { give, take }
    }
}

impl Spares {
    pub(crate) fn new() -> Self {
        Self {
            buffers: Shelf::new(),
            lists: Shelf::new(),
        }
    }

    /// An empty buffer with room for at least [`BUFFER_BYTES`].
    pub(super) fn buffer(&self) -> Vec<u8> {
        let spare = self.buffers.take.try_recv().ok();
        spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// An empty list.
    pub(super) fn list(&self) -> Vec<Inbound> {
        self.lists.take.try_recv().unwrap_or_default()
    }

    /// Takes back a buffer that may still be shared: then whoever has it keeps it.
    pub(crate) fn give_buffer(&self, mut buffer: bytes::Bytes) {
        if buffer.is_unique() {
            buffer.clear();
            let buffer = Vec::from(buffer);
            if (BUFFER_BYTES..=MOST_BUFFER_BYTES).contains(&buffer.capacity()) {
                let _ = self.buffers.give.try_send(buffer);
            }
        }
    }

    pub(crate) fn give_list(&self, mut list: Vec<Inbound>) {
        list.clear();
        if list.capacity() <= MOST_PACKETS {
            let _ = self.lists.give.try_send(list);
        }
    }
}

/// What is kept of each kind: 32 connections that send as fast as they can have two each.
const PLACES: usize = 64;

/// What is read at once while data flows, and some more for the packet that was not whole before.
pub(super) const BUFFER_BYTES: usize = 72 * 1024;

/// A buffer that grew beyond this is not kept.
const MOST_BUFFER_BYTES: usize = 256 * 1024;

/// A list that grew beyond this is not kept: 64 KiB of the smallest packets.
const MOST_PACKETS: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_buffer_is_used_again_once_nobody_has_it() {
        let spares = Spares::new();
        let mut buffer = spares.buffer();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let buffer = Bytes::from(buffer);
        spares.give_buffer(buffer.clone());
        let other = spares.buffer();
        assert_ne!(other.as_ptr(), place);
        spares.give_buffer(buffer);
        let again = spares.buffer();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= BUFFER_BYTES);
    }
}
