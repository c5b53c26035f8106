//! The way through the layers, TLS and WebSocket: from what was appended to what goes to the wire.

use std::io;
use std::sync::atomic::Ordering;

use super::buffer::{Cursor, OutBuf};
use super::{CHUNK_BYTES, Outbox, State};
use crate::net::transport::Layers;

pub(super) struct Layered {
    pub(super) layers: Layers,
    /// Appended, and through the layers up to `plain_at`.
    pub(super) plain: OutBuf,
    pub(super) plain_at: Cursor,
}

impl State {
    /// Whether everything that was appended is through the layers.
    pub(super) fn is_encoded(&self) -> bool {
        self.layered
            .as_ref()
            .is_none_or(|layered| layered.plain.is_empty())
    }
}

impl Outbox {
    /// Brings all of `buf` through the layers, as far as they take it.
    pub(super) fn frame(&self, layered: &mut Layered, buf: &mut OutBuf, wire: &mut Vec<u8>) {
        let Layered {
            layers,
            plain,
            plain_at,
        } = layered;
        let (length, before) = (buf.len(), wire.len());
        layers.take_control(wire);
        let mut at = Cursor::default();
        while let Some(part) = buf.part(at) {
            let part = part.get(..CHUNK_BYTES).unwrap_or(part);
            if layers.send(part, wire).is_err() {
                // The next write says so.
                break;
            }
            buf.advance_in_part(&mut at, part.len());
        }
        plain.append_rest(buf, at);
        *plain_at = Cursor::default();
        let framed = length - plain.len();
        self.backlog
            .fetch_add(wire.len() - before, Ordering::Relaxed);
        self.count_off(framed);
    }

    /// Brings the next of what was appended through the layers, and what they want to say themselves: at the end, if it is time for it, the
    /// goodbye. A little at a time, so that the lock is not held for long.
    pub(super) fn encode(&self, state: &mut State) -> io::Result<()> {
        let State {
            layered: Some(layered),
            out,
            closing,
            ..
        } = state
        else {
            return Ok(());
        };
        let Layered {
            layers,
            plain,
            plain_at,
        } = &mut **layered;
        let (out_before, mut left) = (out.len(), CHUNK_BYTES);
        let wire = out.bytes_mut();
        layers.take_control(wire);
        while let Some(part) = plain.part(*plain_at).filter(|_| left > 0) {
            let part = part.get(..left).unwrap_or(part);
            layers.send(part, wire).map_err(io::Error::other)?;
            left -= part.len();
            plain.advance_in_part(plain_at, part.len());
        }
        if plain.part(*plain_at).is_none() {
            *plain = OutBuf::new();
            *plain_at = Cursor::default();
            if *closing {
                layers.close(wire);
            }
        }
        self.backlog
            .fetch_add(out.len() - out_before, Ordering::Relaxed);
        self.count_off(CHUNK_BYTES - left);
        Ok(())
    }
}
