//! Which sockets are ready: epoll, level-triggered.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// An epoll instance. Sockets are known by a number that the caller chooses.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Box<[MaybeUninit<Event>]>,
}

/// A socket that is ready.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) writable: bool,
    pub(crate) readable: bool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let events = (0..256).map(|_| MaybeUninit::uninit()).collect();
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events,
        })
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(token as u64),
            EventFlags::IN,
        )?)
    }

    /// Says whether to wait for room in the send buffer too.
    pub(crate) fn want_write(
        &self,
        socket: &TcpStream,
        token: usize,
        want: bool,
    ) -> io::Result<()> {
        let flags = if want {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(token as u64),
            flags,
        )?)
    }

    /// Waits and puts what is ready into `ready`. None after `timeout`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(&self.epoll, &mut *self.events, Some(&timeout)) {
            Ok((events, _)) => {
                ready.extend(events.iter().map(|event| {
                    // Copied: the fields of the packed struct may not be borrowed.
                    let (flags, data) = (event.flags, event.data);
                    let readable = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
                    Ready {
                        token: data.u64() as usize,
                        writable: flags.contains(EventFlags::OUT),
                        readable: flags.intersects(readable),
                    }
                }));
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
