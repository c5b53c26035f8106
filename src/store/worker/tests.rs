use std::num::NonZeroU64;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver as Events;

use super::*;
use crate::proto::{Message, TopicName};
use crate::store::{Change, Failure, MemoryStore, MessageId, StoreHandle, StoreState, channel};

const PATIENCE: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(100_000);

/// A store's thread at work on a store in memory.
struct Running {
    store: MemoryStore,
    handle: Option<StoreHandle<&'static str>>,
    events: Events<StoreEvent<&'static str>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// `before` is what waits already when the thread begins.
    fn start(store: MemoryStore, options: StoreOptions, before: Vec<Commit<&'static str>>) -> Self {
        let (handle, inbox) = channel();
        before.into_iter().for_each(|commit| handle.commit(commit));
        let (to_events, events) = crossbeam_channel::bounded(1000);
        let disk = Box::new(store.clone());
        let handler: StoreHandler<&'static str> = Arc::new(move |event| {
            let _ = to_events.send(event);
        });
        let thread = spawn_critical("store", move || inbox.run(disk, options, handler)).unwrap();
        Self {
            store,
            handle: Some(handle),
            events,
            thread: Some(thread),
        }
    }

    fn handle(&self) -> &StoreHandle<&'static str> {
        self.handle.as_ref().unwrap()
    }

    fn event(&self) -> StoreEvent<&'static str> {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    fn released(&self) -> (u64, Vec<&'static str>) {
        match self.event() {
            StoreEvent::Durable { sequence, releases } => (sequence, releases),
            other => panic!("{other:?}"),
        }
    }

    /// Drops the handle and waits for the end.
    fn end(&mut self) {
        self.handle = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

fn id(id: u64) -> MessageId {
    MessageId(NonZeroU64::new(id).unwrap())
}

fn record(text: &'static str) -> MessageRecord {
    MessageRecord {
        message: Arc::new(Message::new(TopicName::parse("a").unwrap(), text)),
        expires_at: None,
    }
}

fn put(sequence: u64, release: &'static str) -> Commit<&'static str> {
    Commit {
        sequence,
        changes: vec![Change::PutMessage(id(sequence), record("text"))],
        releases: vec![release],
        release_bytes: 0,
    }
}

fn with(sequence: u64, changes: Vec<Change>) -> Commit<&'static str> {
    Commit {
        sequence,
        changes,
        releases: vec!["done"],
        release_bytes: 0,
    }
}

#[test]
fn what_waits_is_written_at_once_and_released_in_order() {
    let before = vec![put(1, "a"), put(2, "b"), put(3, "c")];
    let mut running = Running::start(MemoryStore::new(), Durability::Group.into(), before);
    assert_eq!(running.released(), (3, vec!["a", "b", "c"]));
    assert_eq!(running.store.writes(), 1);
    running.handle().commit(put(4, "d"));
    assert_eq!(running.released(), (4, vec!["d"]));
    assert_eq!(running.store.writes(), 2);
    running.end();
    assert_eq!(running.store.state().messages.len(), 4);
}

#[test]
fn what_comes_to_nothing_is_released_without_a_write() {
    let mut running = Running::start(MemoryStore::new(), Durability::Group.into(), Vec::new());
    let changes = vec![
        Change::PutMessage(id(1), record("x")),
        Change::DeleteMessage(id(1)),
    ];
    running.handle().commit(with(1, changes));
    running.handle().commit(with(2, Vec::new()));
    let mut last = 0;
    while last < 2 {
        last = running.released().0;
    }
    assert_eq!(running.store.writes(), 0);
    running.end();
}

#[test]
fn the_durable_sequence_follows_the_handler() {
    let mut running = Running::start(MemoryStore::new(), Durability::Group.into(), Vec::new());
    let handle = running.handle().clone();
    assert_eq!(handle.durable(), 0);
    handle.commit(put(1, "a"));
    running.released();
    handle.stop();
    running.end();
    assert_eq!(handle.durable(), 1);
    let status = handle.status();
    assert_eq!((status.commits, status.syncs, status.messages), (1, 1, 1));
    assert_eq!(status.durability, Some(Durability::Group));
}

#[test]
fn with_an_interval_nothing_waits_and_all_is_written_at_the_end() {
    let durability = Durability::Interval(NEVER);
    let mut running = Running::start(MemoryStore::new(), durability.into(), Vec::new());
    running.handle().commit(put(1, "a"));
    assert_eq!(running.released(), (1, vec!["a"]));
    assert_eq!(running.store.writes(), 0);
    running.end();
    assert_eq!(running.store.state().messages.len(), 1);
}

#[test]
fn an_interval_ends_with_a_write() {
    let durability = Durability::Interval(Duration::from_millis(1));
    let mut running = Running::start(MemoryStore::new(), durability.into(), Vec::new());
    running.handle().commit(put(1, "a"));
    running.released();
    let deadline = crossbeam_channel::after(PATIENCE);
    while running.store.writes() == 0 {
        assert!(deadline.is_empty(), "nothing was written");
        std::thread::yield_now();
    }
    running.end();
}

#[test]
fn a_full_disk_releases_nothing_until_there_is_room() {
    let store = MemoryStore::new();
    store.fail_at(1, Failure::Full);
    store.fail_at(2, Failure::Full);
    let options = StoreOptions {
        retry_after: Duration::from_millis(1),
        ..Durability::Group.into()
    };
    let mut running = Running::start(store, options, vec![put(1, "a")]);
    match running.event() {
        StoreEvent::Trouble(Trouble::Full, _) => {}
        other => panic!("{other:?}"),
    }
    running.handle().commit(put(2, "b"));
    assert!(matches!(running.event(), StoreEvent::Healed));
    let (mut last, mut releases) = running.released();
    if last == 1 {
        let (next, more) = running.released();
        last = next;
        releases.extend(more);
    }
    assert_eq!((last, releases), (2, vec!["a", "b"]));
    assert_eq!(running.handle().status().state, StoreState::Ok);
    running.end();
    assert_eq!(running.store.state().messages.len(), 2);
}

#[test]
fn a_failing_disk_is_told_and_what_may_be_there_is_deleted() {
    let store = MemoryStore::new();
    store.fail_at(1, Failure::WriteAfterwards);
    let options = StoreOptions {
        retry_after: NEVER,
        ..Durability::Group.into()
    };
    let mut running = Running::start(store, options, vec![put(1, "a")]);
    match running.event() {
        StoreEvent::Trouble(Trouble::Failing, _) => {}
        other => panic!("{other:?}"),
    }
    let delete = with(2, vec![Change::DeleteMessage(id(1))]);
    running.handle().commit(delete);
    running.end();
    assert!(matches!(running.event(), StoreEvent::Healed));
    assert_eq!(running.released(), (2, vec!["a", "done"]));
    assert!(running.store.state().messages.is_empty());
}

#[test]
fn a_failed_sync_is_told_and_ends_the_thread() {
    let store = MemoryStore::new();
    store.fail_at(1, Failure::Sync);
    let mut running = Running::start(store, Durability::Group.into(), vec![put(1, "a")]);
    assert!(matches!(
        running.event(),
        StoreEvent::SyncFailed(StoreError::Sync(_))
    ));
    running.thread.take().unwrap().join().unwrap();
    running.handle().commit(put(2, "b"));
    assert!(running.events.try_recv().is_err());
    assert_eq!(running.store.writes(), 1);
}

#[test]
fn a_read_sees_what_was_sent_before_it_written_or_not() {
    let durability = Durability::Interval(NEVER);
    let store = MemoryStore::new();
    let mut first = store.clone();
    let on_disk = ChangeSet::of([Change::PutMessage(id(9), record("old"))]);
    first.write(&on_disk).unwrap();
    let mut running = Running::start(store, durability.into(), Vec::new());
    running.handle().commit(put(1, "a"));
    running.handle().read(7, vec![id(9), id(1), id(5)]);
    running.handle().read(8, vec![id(9)]);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        if let StoreEvent::Read { token, result } = running.event() {
            let texts = result.unwrap().into_iter();
            let texts = texts.map(|record| record.map(|record| record.message.payload.clone()));
            answers.push((token, texts.collect::<Vec<_>>()));
        }
    }
    answers.sort();
    let (old, new) = (Some("old".into()), Some("text".into()));
    assert_eq!(answers, [(7, vec![old.clone(), new, None]), (8, vec![old])]);
    running.end();
}

#[test]
fn a_snapshot_of_a_store_in_memory_is_refused() {
    let mut running = Running::start(MemoryStore::new(), Durability::Group.into(), Vec::new());
    let (reply, replied) = crossbeam_channel::bounded(1);
    let reply: SnapshotReply = Box::new(move |result| drop(reply.send(result)));
    running.handle().snapshot("/nowhere".into(), reply);
    assert!(replied.recv_timeout(PATIENCE).unwrap().is_err());
    running.end();
}

#[test]
fn a_simulation_takes_the_requests_one_by_one() {
    let (handle, inbox) = channel();
    handle.read(3, vec![id(1)]);
    handle.commit(put(1, "a"));
    let mut store = MemoryStore::new();
    let mut group = GroupCommit::new(Durability::Group);
    let Some(Request::Commit(commit)) = inbox.try_next() else {
        panic!("the commit comes first");
    };
    group.take(commit);
    assert!(group.release().is_none());
    let mut events = Vec::new();
    group
        .write(&mut store, &mut |event| events.push(event))
        .unwrap();
    assert!(matches!(
        events[..],
        [StoreEvent::Durable { sequence: 1, .. }]
    ));
    inbox.set_durable(1);
    assert_eq!(handle.durable(), 1);
    assert!(matches!(inbox.try_next(), Some(Request::Read(read)) if read.token == 3));
    assert!(inbox.try_next().is_none());
}

#[test]
fn an_interval_ends_when_much_waits() {
    let durability = Durability::Interval(NEVER);
    let mut running = Running::start(MemoryStore::new(), durability.into(), Vec::new());
    let backlog = running.handle().backlog();
    let size = put(1, "a").size_bytes();
    backlog.set_limit(4 * size);
    running.handle().commit(put(1, "a"));
    running.released();
    assert_eq!((running.store.writes(), backlog.bytes()), (0, size));
    running.handle().commit(put(2, "b"));
    running.released();
    let deadline = crossbeam_channel::after(PATIENCE);
    while backlog.bytes() > 0 {
        assert!(deadline.is_empty(), "nothing was written");
        std::thread::yield_now();
    }
    assert_eq!(running.store.state().messages.len(), 2);
    running.end();
}

/// A retained message that is replaced again and again, or messages that come and go, do not fill the memory while the
/// disk is full.
#[test]
fn after_a_failed_write_no_more_waits_than_what_the_changes_come_to() {
    let store = MemoryStore::new();
    store.set_failing(Some(Failure::Full));
    let options = StoreOptions {
        retry_after: Duration::from_millis(1),
        ..Durability::Group.into()
    };
    let mut running = Running::start(store, options, vec![put(1, "a")]);
    let one = put(1, "a").size_bytes();
    for sequence in 2..100 {
        let come_and_go = vec![
            Change::PutMessage(id(sequence), record("text")),
            Change::DeleteMessage(id(sequence)),
        ];
        running.handle().commit(with(sequence, come_and_go));
    }
    let deadline = crossbeam_channel::after(PATIENCE);
    while running.handle().backlog().bytes() != one {
        assert!(deadline.is_empty());
        std::thread::yield_now();
    }
    running.store.set_failing(None);
    while running.handle().backlog().bytes() != 0 {
        assert!(deadline.is_empty());
        std::thread::yield_now();
    }
    running.end();
}
