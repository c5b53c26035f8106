//! The broker's store: opened at the start, served by a thread of its own, ended after the router.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::Config;
use super::router::command::Command;
use super::router::inbox::Post;
use super::router::journal::Release;
use super::router::{Router, flush_elsewhere};
use crate::outbox::Outbox;
use crate::store::{
    Backlog, Control, DiskStore, Durability, Store, StoreError, StoreEvent, StoreHandle,
    StoreInbox, channel_with,
};
use crate::thread::{self, EXIT_STORE};

/// Opens a store, at each start anew.
pub(super) type OpenStore = dyn Fn() -> Result<Box<dyn Store>, StoreError> + Send + Sync;

/// Where state is kept that outlives the process.
#[derive(Clone)]
pub(super) struct Persistence {
    pub(super) open: Arc<OpenStore>,
    pub(super) durability: Durability,
    /// Bytes of queued messages that are kept in memory beside the store.
    pub(super) queue_memory: usize,
}

impl fmt::Debug for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistence")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// A store that was opened and read back, and whose thread does not run yet.
pub(super) struct Opened {
    store: Box<dyn Store>,
    durability: Durability,
    handle: StoreHandle<Release>,
    inbox: StoreInbox<Release>,
}

/// A store's thread, and the socket through which a copy is asked for.
pub(super) struct RunningStore {
    handle: StoreHandle<Release>,
    control: Option<Control>,
    thread: JoinHandle<()>,
}

impl Persistence {
    /// As the settings say; `None`: nothing outlives the process.
    pub(super) fn of_config(config: &Config) -> Option<Self> {
        let settings = &config.persistence;
        let file = settings.file.clone()?;
        let open = move || Ok(Box::new(DiskStore::open(&file)?) as Box<dyn Store>);
        Some(Self {
            open: Arc::new(open),
            durability: settings.durability,
            queue_memory: settings.queue_memory_bytes,
        })
    }

    /// Opens the store and gives the router back what it holds.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be opened or read; the broker must not start.
    pub(super) fn restore(
        &self,
        router: &mut Router,
        backlog: &Arc<Backlog>,
        now: Instant,
    ) -> Result<Opened, StoreError> {
        let store = (self.open)()?;
        let (handle, inbox) = channel_with(Arc::clone(backlog));
        let holds = self.durability == Durability::Group;
        let restored = router.restore(&*store, handle.clone(), holds, self.queue_memory, now)?;
        log::info!(
            "store opened, durability {}: {} sessions, {} subscriptions, {} queued and {} retained messages",
            mode(self.durability),
            restored.sessions,
            restored.subscriptions,
            restored.queued,
            restored.retained
        );
        Ok(Opened {
            store,
            durability: self.durability,
            handle,
            inbox,
        })
    }
}

impl Opened {
    /// Starts the thread that writes.
    pub(super) fn run(
        self,
        router: Post,
        flushers: Sender<Vec<Arc<Outbox>>>,
    ) -> io::Result<RunningStore> {
        let Self {
            store,
            durability,
            handle,
            inbox,
        } = self;
        let control = store.file().and_then(|file| {
            let started = Control::start(file, handle.clone());
            let no_backup = |error| log::warn!("no copy of the store can be asked for: {error}");
            started.map_err(no_backup).ok()
        });
        let handler = Arc::new(move |event| handle_event(event, &router, &flushers));
        let thread =
            thread::spawn_critical("store", move || inbox.run(store, durability, handler))?;
        Ok(RunningStore {
            handle,
            control,
            thread,
        })
    }
}

impl RunningStore {
    /// Has everything written, and ends the thread.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.handle.stop();
        // A copy that is being written ends with the store.
        drop(self.control);
        self.thread
    }
}

/// A durability as people read it.
pub(super) fn mode(durability: Durability) -> String {
    match durability {
        Durability::Group => "group".to_owned(),
        Durability::NONE => "none".to_owned(),
        Durability::Interval(interval) => format!("interval {} ms", interval.as_millis()),
    }
}

fn handle_event(event: StoreEvent<Release>, router: &Post, flushers: &Sender<Vec<Arc<Outbox>>>) {
    match event {
        StoreEvent::Durable { releases, .. } => {
            for release in releases {
                let told = release.run(&mut |outbox| flush_elsewhere(flushers, vec![outbox]));
                // BLOCKS: on the router's inbox. The router never waits for the store.
                if let Some(command) = told {
                    let _ = router.send(command);
                }
            }
        }
        // BLOCKS: as above.
        StoreEvent::Read { token, result } => {
            let _ = router.send(Command::Loaded { token, result });
        }
        StoreEvent::Trouble(_, text) => log::error!(
            "the store cannot be written: {text}. Nothing that must be kept is acknowledged until it can"
        ),
        StoreEvent::Healed => log::warn!("the store can be written again"),
        StoreEvent::SyncFailed(error) => {
            log::error!(
                "the store could not be synced: {error}. What was written may be lost in the system's cache: the process \
                 ends and what is durable is read at the next start"
            );
            log::logger().flush();
            std::process::exit(EXIT_STORE);
        }
    }
}
