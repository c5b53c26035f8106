use std::fs;

use super::super::tests::{Directory, state, workload};
use super::super::*;
use super::*;
use crate::store::{Change, MemoryState, Position, SessionKey};

/// A store with a queue of `count` messages.
fn filled(file: &Path, count: u64) -> MemoryState {
    let mut store = DiskStore::open(file).unwrap();
    for set in workload(9, 200) {
        store.write(&set).unwrap();
    }
    let (known, next) = state(&store).unwrap();
    let session = next.next_session;
    let record = known.sessions.values().next().unwrap().clone();
    let some_entry = known.entries.values().next().unwrap().clone();
    let some_message = known.messages.values().next().unwrap().clone();
    let mut id = next.next_message;
    let mut changes = vec![Change::PutSession(session, Box::new(record))];
    for position in 0..count {
        let mut entry = some_entry.clone();
        entry.message = Some(id);
        changes.push(Change::PutMessage(id, some_message.clone()));
        changes.push(Change::PutEntry(session, Position(position), entry));
        id = id.next();
    }
    store.write(&ChangeSet::of(changes)).unwrap();
    state(&store).unwrap().0
}

/// What is left of a state when rows that speak of others that are not there are taken out.
fn consistent(mut state: MemoryState) -> MemoryState {
    let MemoryState {
        sessions,
        subscriptions,
        incoming,
        messages,
        entries,
        ..
    } = &mut state;
    subscriptions.retain(|(session, _), _| sessions.contains_key(session));
    incoming.retain(|(session, _), ()| sessions.contains_key(session));
    entries.retain(|(session, _), entry| {
        let has_message = entry.message.is_none_or(|id| messages.contains_key(&id));
        sessions.contains_key(session) && has_message
    });
    let referred: Vec<_> = entries.values().filter_map(|entry| entry.message).collect();
    messages.retain(|id, _| referred.contains(id));
    state
}

fn run(file: &Path, to: &Path) -> (Salvaged, Vec<String>) {
    let mut notes = Vec::new();
    let salvaged = salvage(file, to, &mut |note| notes.push(note.to_owned())).unwrap();
    assert_eq!(salvaged.losses, notes.len() as u64);
    (salvaged, notes)
}

fn read_back(file: &Path) -> MemoryState {
    state(&DiskStore::open_existing(file).unwrap()).unwrap().0
}

#[test]
fn a_store_that_is_whole_is_salvaged_whole() {
    let directory = Directory::new();
    let (file, to) = (directory.file("store"), directory.file("new"));
    let known = consistent(filled(&file, 500));
    let before = fs::read(&file).unwrap();
    let (_, notes) = run(&file, &to);
    assert!(fs::read(&file).unwrap() == before, "the file was written");
    assert_eq!(read_back(&to), known, "{notes:?}");
    assert!(matches!(
        salvage(&file, &to, &mut |_| {}),
        Err(StoreError::Exists(_))
    ));
    let open = DiskStore::open(&file).unwrap();
    assert!(matches!(
        salvage(&file, &directory.file("other"), &mut |_| {}),
        Err(StoreError::Locked(_))
    ));
    drop(open);
    let mut new = DiskStore::open(&to).unwrap();
    let mut notes = Vec::new();
    let contents = new.check(&mut |note| notes.push(note.to_owned())).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(contents, new.contents().unwrap());
    assert_eq!(contents.entries.count, known.entries.len() as u64);
    assert!(contents.messages.bytes > 500 && contents.file_bytes > 0);
}

#[test]
fn what_does_not_fit_together_is_told() {
    let directory = Directory::new();
    let file = directory.file("store");
    filled(&file, 3);
    let mut store = DiskStore::open(&file).unwrap();
    let session = state(&store).unwrap().1.next_session.0 - 1;
    let change = Change::DeleteSession(SessionKey(session));
    store.write(&ChangeSet::of([change])).unwrap();
    let mut notes = Vec::new();
    store
        .check(&mut |note| notes.push(note.to_owned()))
        .unwrap();
    let unreferenced = notes.iter().filter(|note| note.contains("no entry refers"));
    assert!(unreferenced.count() >= 3, "{notes:?}");
}

/// Destroys pages of the file. Most of it must come back, and nothing that was not there.
#[test]
fn around_damaged_pages_everything_is_read() {
    let directory = Directory::new();
    let file = directory.file("store");
    let known = consistent(filled(&file, 2000));
    let whole = fs::read(&file).unwrap();
    let leaves: Vec<_> = (PAGE_BYTES..whole.len())
        .step_by(PAGE_BYTES)
        .filter(|at| whole[*at] == LEAF && whole[at + 2] > 0)
        .collect();
    assert!(leaves.len() > 50);
    for round in 0..4 {
        let mut damaged = whole.clone();
        for number in 0..=round % 3 {
            let at = leaves[(round * 7 + number * 31) % leaves.len()];
            damaged[at + 4..at + PAGE_BYTES].fill(0xEE);
        }
        let file = directory.file(&format!("damaged-{round}"));
        let to = directory.file(&format!("new-{round}"));
        fs::write(&file, &damaged).unwrap();
        let refused = DiskStore::open(&file).and_then(|store| state(&store));
        let (_, notes) = run(&file, &to);
        let found = read_back(&to);
        if refused.is_err() {
            assert!(!notes.is_empty());
        }
        for (key, entry) in &found.entries {
            assert_eq!(known.entries.get(key), Some(entry), "{notes:?}");
        }
        for (id, message) in &found.messages {
            assert_eq!(known.messages.get(id), Some(message), "{notes:?}");
        }
        let kept = found.entries.len() * 10 / known.entries.len();
        assert!(
            kept >= 8,
            "{} of {}: {notes:?}",
            found.entries.len(),
            known.entries.len()
        );
    }
}

#[test]
fn without_a_header_the_pages_are_searched() {
    let directory = Directory::new();
    let (file, to) = (directory.file("store"), directory.file("new"));
    let known = consistent(filled(&file, 1000));
    let mut bytes = fs::read(&file).unwrap();
    bytes[..PAGE_BYTES].fill(0);
    fs::write(&file, bytes).unwrap();
    assert!(matches!(
        DiskStore::open(&file),
        Err(StoreError::Damaged(_))
    ));
    let (salvaged, notes) = run(&file, &to);
    assert!(salvaged.losses > 0 && !notes.is_empty());
    let found = read_back(&to);
    for (key, entry) in &known.entries {
        assert!(found.entries.contains_key(key), "{key:?} {entry:?}");
    }
}
