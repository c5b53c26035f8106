//! What a queue of a million messages costs: `cargo test --release --lib a_million -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::proto::{Message, QoS, TopicName};
use crate::store::{EntryState, Position};

const MESSAGES: u64 = 1_000_000;
const GROUP: u64 = 1000;
const ALONE: u64 = 2000;

fn id(number: u64) -> MessageId {
    MessageId(std::num::NonZeroU64::new(number + 1).unwrap())
}

/// A queue's next messages, 64 bytes each.
fn puts(numbers: std::ops::Range<u64>) -> ChangeSet {
    ChangeSet::of(numbers.flat_map(|number| {
        let topic = TopicName::parse(format!("sensors/{}/temperature", number % 1000)).unwrap();
        let message = MessageRecord {
            message: Arc::new(Message::new(topic, vec![b'x'; 64])),
            expires_at: None,
        };
        let entry = EntryRecord {
            message: Some(id(number)),
            size_bytes: 200,
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: None,
            group: None,
            state: EntryState::Waiting,
        };
        [
            Change::PutMessage(id(number), message),
            Change::PutEntry(SessionKey(1), Position(number), entry),
        ]
    }))
}

fn deletes(numbers: std::ops::Range<u64>) -> ChangeSet {
    ChangeSet::of(numbers.flat_map(|number| {
        [
            Change::DeleteEntry(SessionKey(1), Position(number)),
            Change::DeleteMessage(id(number)),
        ]
    }))
}

fn groups(of: u64, group: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..of / group).map(move |number| number * group..(number + 1) * group)
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = run();
    println!(
        "{what}: {:.2} s, {}",
        start.elapsed().as_secs_f64(),
        resident()
    );
    done
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or_default().to_owned()
}

fn load_all(file: &Path) -> DiskStore {
    let store = timed("  open", || DiskStore::open(file).unwrap());
    timed("  load", || store.load(&mut |_| Ok(())).unwrap());
    store
}

#[test]
#[ignore = "a measurement"]
fn a_million_queued_messages() {
    let directory = Directory::new();
    let file = directory.file("store.redb");
    let mut store = DiskStore::open(&file).unwrap();
    store.load(&mut |_| Ok(())).unwrap();
    timed("2,000 messages, each with its sync", || {
        for number in groups(ALONE, 1) {
            store.write(&puts(number)).unwrap();
        }
    });
    timed("their deletion, all at once", || {
        store.write(&deletes(0..ALONE)).unwrap();
    });
    timed("1,000,000 messages, 1,000 with a sync", || {
        for numbers in groups(MESSAGES, GROUP) {
            store.write(&puts(numbers)).unwrap();
        }
    });
    println!("on disk: {} bytes", fs::metadata(&file).unwrap().len());
    let crashed = directory.file("crashed.redb");
    fs::copy(&file, &crashed).unwrap();
    println!("start after a crash:");
    drop(load_all(&crashed));
    fs::remove_file(&crashed).unwrap();
    drop(store);
    println!("start after an orderly end:");
    let mut store = load_all(&file);
    let reader = store.reader();
    let ids: Vec<_> = (0..MESSAGES).map(id).collect();
    timed("1,000,000 messages read, 100 at a time", || {
        for ids in ids.chunks(100) {
            reader.messages(ids).unwrap();
        }
    });
    timed(
        "delivery: deleted, 1,000 with a sync, compacted on the way",
        || {
            for numbers in groups(MESSAGES, GROUP) {
                store.write(&deletes(numbers)).unwrap();
            }
        },
    );
    println!("on disk: {} bytes", fs::metadata(&file).unwrap().len());
}
