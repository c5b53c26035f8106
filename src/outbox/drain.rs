//! The write turn of a drain thread: from the moment on that the socket takes no more, until nothing waits. Only this thread blocks, and the
//! events come from it.

use std::io;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::buffer::{Cursor, OutBuf};
use super::{CHUNK_BYTES, Outbox, OutboxEvent, State, linger};
use crate::thread::Pool;

impl Outbox {
    /// Gives the write turn to a drain thread.
    pub(super) fn start_drain(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        state.draining = true;
        drop(state);
        let outbox = Arc::clone(self);
        let started =
            Pool::shared().run(format!("drain-{}", self.options.id), move || outbox.drain());
        if let Err(error) = started {
            log::warn!("no thread for a slow peer, closing its connection: {error}");
            self.abort();
        }
    }

    /// Writes until nothing waits. Runs on a drain thread.
    fn drain(&self) {
        let written = self
            .socket
            .set_write_timeout(Some(self.options.write_timeout))
            .and_then(|()| self.drain_all());
        if let Err(error) = written
            && self.break_off()
        {
            (self.on_event)(OutboxEvent::Failed(error.into()));
        }
    }

    /// Events come from drain threads only: the one that would call here may be the one that has to handle it.
    pub(super) fn tell_elsewhere(self: &Arc<Self>, error: io::Error) {
        let outbox = Arc::clone(self);
        let started = Pool::shared().run(format!("drain-{}", self.options.id), move || {
            (outbox.on_event)(OutboxEvent::Failed(error.into()));
        });
        if let Err(error) = started {
            log::warn!("no thread to tell that a connection broke: {error}");
        }
    }

    fn drain_all(&self) -> io::Result<()> {
        while let Some((out, mut out_at)) = self.take_out()? {
            while out.part(out_at).is_some() {
                // BLOCKS: on the socket until the peer takes something, at most for the write timeout.
                let written = out.write_some(&mut out_at, CHUNK_BYTES, |slices| {
                    self.socket.write_vectored(slices)
                })?;
                self.count_sent(written);
                self.count_off(written);
                self.tell_if_drained();
            }
        }
        Ok(())
    }

    /// All that waits now, or `None` after it has given back the write turn because nothing does.
    fn take_out(&self) -> io::Result<Option<(OutBuf, Cursor)>> {
        let mut state = self.state.lock();
        self.encode(&mut state)?;
        if !state.out.is_empty() {
            return Ok(Some((
                std::mem::take(&mut state.out),
                std::mem::take(&mut state.out_at),
            )));
        }
        state.draining = false;
        let closing = state.closing;
        let owes_event = std::mem::take(&mut state.owes_event);
        drop(state);
        if closing {
            linger::half_close(&self.socket);
        } else if owes_event && !self.is_closed() {
            (self.on_event)(OutboxEvent::Drained);
        }
        Ok(None)
    }

    fn tell_if_drained(&self) {
        let is_drained = || self.backlog() < self.options.soft_limit_bytes / 2;
        if !is_drained() {
            return;
        }
        let mut state = self.state.lock();
        let tell = state.owes_event && is_drained() && !self.is_closed();
        if tell {
            state.owes_event = false;
        }
        drop(state);
        if tell {
            (self.on_event)(OutboxEvent::Drained);
        }
    }
}
