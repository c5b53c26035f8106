//! What the store kept becomes the router's state again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::command::{Owner, RequestedFilter, SessionExpiry};
use super::session::{Delivery, LastConnection, Publisher, Replay, Session, Subscribed};
use super::subscriptions::{SessionSlot, Subscription};
use super::{Router, Timer};
use crate::broker::router::journal::{Release, Stored};
use crate::proto::flow::outgoing::Inflight;
use crate::proto::topic::parse_subscription;
use crate::proto::{PacketId, ShareName, TopicFilter};
use crate::store::{
    EntryRecord, EntryState, Loaded, MessageId, Position, SessionKey, SessionRecord, Store,
    StoreError, StoreHandle, SubscriptionRecord,
};

/// The state while it is read back.
struct Restoring<'a> {
    router: &'a mut Router,
    slots: HashMap<SessionKey, SessionSlot>,
    references: HashMap<MessageId, u32>,
    /// Sessions that were replaced by a newer one of the same client, and others that are over.
    over: Vec<SessionSlot>,
    now: Instant,
}

/// How much was read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) sessions: usize,
    pub(crate) subscriptions: usize,
    pub(crate) queued: usize,
    pub(crate) retained: usize,
}

impl Router {
    /// Reads all state back from `store`, and from now on has its changes written through `handle`.
    ///
    /// `holds`: acknowledgements wait for the disk. `queue_memory`: bytes of queued messages that are kept in memory too.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read; the router must not run.
    pub(crate) fn restore(
        &mut self,
        store: &dyn Store,
        handle: StoreHandle<Release>,
        holds: bool,
        queue_memory: usize,
        now: Instant,
    ) -> Result<Restored, StoreError> {
        let mut restoring = Restoring {
            router: self,
            slots: HashMap::new(),
            references: HashMap::new(),
            over: Vec::new(),
            now,
        };
        let next = store.load(&mut |loaded| {
            restoring.take(loaded);
            Ok(())
        })?;
        let Restoring {
            references, over, ..
        } = restoring;
        let journal = &mut self.sessions.journal;
        journal.open(handle, holds, queue_memory, next);
        journal.set_references(references.into_iter());
        for slot in over {
            self.end_session(slot, now);
        }
        self.sessions.journal.commit();
        let stats = self.stats();
        Ok(Restored {
            sessions: stats.sessions,
            subscriptions: stats.subscriptions,
            queued: stats.queued_messages + stats.inflight_out,
            retained: stats.retained_messages,
        })
    }
}

impl Restoring<'_> {
    fn take(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::Session(key, record) => self.session(key, *record),
            Loaded::Subscription(key, text, record) => self.subscription(key, text, record),
            Loaded::Incoming(key, id) => {
                if let Some(session) = self.session_mut(key) {
                    session.incoming.restore(id);
                }
            }
            Loaded::Entry(key, position, record) => self.entry(key, position, record),
            Loaded::Retained(record) => {
                let message = self.router.sessions.journal.clock().message(record.message);
                let publisher = record.publisher.map(Publisher::from_record).map(Arc::new);
                self.router.retained.restore(message, publisher);
            }
        }
    }

    fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let slot = self.slots.get(&key)?;
        self.router.sessions.session_mut(*slot)
    }

    fn session(&mut self, key: SessionKey, record: SessionRecord) {
        let sessions = &mut self.router.sessions;
        let listener: Arc<str> = Arc::from(&*record.listener);
        let owner = match record.user {
            Some(user) => Owner::User(user),
            None => Owner::Listener(Arc::clone(&listener)),
        };
        let last = LastConnection {
            version: record.version,
            clean_start: false,
            session_present: false,
            keep_alive: 0,
            address: None,
            listener,
        };
        let chain = Arc::clone(sessions.chains.listener(&last.listener));
        let mut session = Session::new(record.client_id, owner, last, chain);
        session.key = Some(key);
        session.will = record.will.map(|record| Box::new(record.will));
        let delay = session.will.as_ref().map(|will| will.delay_interval);
        // One that was online when the process ended has been away since now.
        let clock = *sessions.journal.clock();
        let since = record
            .disconnected_at
            .and_then(|at| clock.instant(at))
            .map_or(self.now, |at| at.min(self.now));
        // Keys are given in sequence: the newer session of a client replaces the older one.
        let older = sessions.find(&session.client_id);
        let slot = sessions.insert(session);
        let expiry = SessionExpiry::from_seconds(record.expiry_seconds);
        sessions.set_expiry(slot, expiry);
        self.slots.insert(key, slot);
        self.over.extend(older);
        let after = |seconds: u32| since.checked_add(Duration::from_secs(seconds.into()));
        match expiry {
            SessionExpiry::AtDisconnect => self.over.push(slot),
            SessionExpiry::After(seconds) => {
                if let Some(at) = after(seconds) {
                    self.router.timers.set(Timer::SessionExpiry(slot), at);
                }
            }
            SessionExpiry::Never => {}
        }
        if let Some(at) = delay.and_then(after) {
            self.router.timers.set(Timer::WillDelay(slot), at);
        }
    }

    fn subscription(&mut self, key: SessionKey, text: ByteString, record: SubscriptionRecord) {
        let share = record.share.map(ShareName::parse).transpose();
        let (Some(slot), Ok(filter), Ok(share)) = (
            self.slots.get(&key).copied(),
            TopicFilter::parse(record.filter),
            share,
        ) else {
            return;
        };
        let options = record.options;
        let id = record.id;
        self.router.subscriptions.subscribe(
            slot,
            &filter,
            share.as_ref(),
            Subscription { options, id },
        );
        let Some(session) = self.router.sessions.session_mut(slot) else {
            return;
        };
        if let Some(replay) = record.replay {
            session.replays.push_back(Replay {
                text: text.clone(),
                filter: filter.clone(),
                qos: options.qos,
                id,
                after: replay.after,
                moved: false,
            });
        }
        let requested = RequestedFilter {
            text: text.clone(),
            share,
            filter,
            options,
        };
        session
            .subscriptions
            .insert(text, Box::new(Subscribed { requested, id }));
    }

    fn entry(&mut self, key: SessionKey, position: Position, record: EntryRecord) {
        if let Some(id) = record.message {
            *self.references.entry(id).or_insert(0) += 1;
        }
        let group = record.group.and_then(|text| {
            let (share, filter) = parse_subscription(&text).ok()?;
            self.router.subscriptions.group_id(&filter, &share?)
        });
        let delivery = Delivery {
            message: None,
            stored: Some(Stored {
                message: record.message,
                position,
            }),
            size_bytes: record.size_bytes,
            qos: record.qos,
            retain: record.retain,
            ids: record.ids,
            group,
        };
        let sessions = &mut self.router.sessions;
        let Some(slot) = self.slots.get(&key).copied() else {
            return;
        };
        match record.state {
            EntryState::Waiting => sessions.restore_queued(slot, delivery, position),
            EntryState::Sent(id) => restore_flow(sessions.session_mut(slot), id, delivery, false),
            EntryState::Released(id) => {
                restore_flow(sessions.session_mut(slot), id, delivery, true);
            }
        }
    }
}

fn restore_flow(session: Option<&mut Session>, id: PacketId, delivery: Delivery, released: bool) {
    let Some(session) = session else { return };
    if let Some(stored) = delivery.stored {
        session.note_position(stored.position);
    }
    session.flows_away |= !released;
    let qos = delivery.qos;
    let flow = Inflight {
        id,
        message: delivery,
        qos,
        released,
    };
    // An identifier is stored for one flow at a time.
    let _ = session.outgoing.restore(flow);
}
