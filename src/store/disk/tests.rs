mod crash_disk;
mod million;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use redb::TableDefinition;

use super::*;
use crate::store::change::tests::history;
use crate::store::{Change, EntryRecord, MemoryState, SessionKey};
use crash_disk::{CrashDisk, Random};

/// A directory that goes with the test.
pub(in crate::store) struct Directory(PathBuf);

impl Directory {
    pub(in crate::store) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hbmqtt-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(in crate::store) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All that a store holds, read back as a start does.
pub(super) fn state(store: &DiskStore) -> Result<(MemoryState, Identifiers), StoreError> {
    let mut state = MemoryState::default();
    let identifiers = store.load(&mut |loaded| {
        match loaded {
            Loaded::Session(key, record) => drop(state.sessions.insert(key, *record)),
            Loaded::Subscription(key, filter, record) => {
                state.subscriptions.insert((key, filter), record);
            }
            Loaded::Incoming(key, id) => drop(state.incoming.insert((key, id), ())),
            Loaded::Entry(key, position, record) => {
                state.entries.insert((key, position), record);
            }
            Loaded::Retained(record) => {
                let topic = record.message.message.topic.clone();
                state.retained.insert(topic, *record);
            }
        }
        Ok(())
    })?;
    let all: Vec<_> = (1..identifiers.next_message.0.get())
        .filter_map(|id| std::num::NonZeroU64::new(id).map(MessageId))
        .collect();
    let messages = store.reader().messages(&all)?;
    for (id, record) in all.into_iter().zip(messages) {
        state.messages.extend(record.map(|record| (id, record)));
    }
    Ok((state, identifiers))
}

/// Changes for a seed, in commits.
pub(super) fn workload(seed: u64, changes: usize) -> Vec<ChangeSet> {
    let mut random = Random::new(seed);
    let numbers: Vec<_> = (0..changes)
        .map(|_| {
            let [what, which, with, ..] = random.next().to_le_bytes();
            (what, which, with)
        })
        .collect();
    let mut rest = history(&numbers).into_iter().peekable();
    let mut sets = Vec::new();
    while rest.peek().is_some() {
        let count = 1 + random.below(12);
        let set = ChangeSet::of(rest.by_ref().take(usize::try_from(count).unwrap()));
        if !set.is_empty() {
            sets.push(set);
        }
    }
    sets
}

/// The states after each of the sets, the empty one first.
fn states(sets: &[ChangeSet]) -> Vec<MemoryState> {
    let mut states = vec![MemoryState::default()];
    for set in sets {
        let mut next = states.last().unwrap().clone();
        next.apply(set);
        states.push(next);
    }
    states
}

fn on(disk: &CrashDisk) -> Result<DiskStore, StoreError> {
    DiskStore::on(Box::new(disk.clone()))
}

#[test]
fn a_store_holds_what_was_written_over_a_restart() {
    let directory = Directory::new();
    let file = directory.file("deep/down/store.redb");
    for seed in 0..10 {
        let file = file.with_extension(seed.to_string());
        let mut store = DiskStore::open(&file).unwrap();
        let sets = workload(seed, 300);
        let states = states(&sets);
        for (set, expected) in sets.iter().zip(&states[1..]) {
            store.write(set).unwrap();
            if seed == 0 {
                assert_eq!(state(&store).unwrap().0, *expected);
            }
        }
        drop(store);
        let store = DiskStore::open_existing(&file).unwrap();
        let (found, identifiers) = state(&store).unwrap();
        assert_eq!(found, *states.last().unwrap());
        let expected = found.visit(&mut |_| Ok(())).unwrap();
        assert_eq!(identifiers.next_message, expected.next_message);
        assert!(identifiers.next_session >= expected.next_session);
        assert!(store.size_bytes() > 0);
    }
}

#[test]
fn a_store_is_its_owners_alone_and_open_once() {
    let directory = Directory::new();
    let file = directory.file("data/store.redb");
    let store = DiskStore::open(&file).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    let error = DiskStore::open(&file).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    let reader = store.reader();
    drop(store);
    assert!(matches!(reader.messages(&[]), Err(StoreError::Closed)));
    DiskStore::open(&file).unwrap();
    let half_made = directory.file("half/store.redb.new-store");
    fs::create_dir(half_made.parent().unwrap()).unwrap();
    fs::write(&half_made, [0; 9000]).unwrap();
    DiskStore::open(&half_made.with_extension("")).unwrap();
    assert!(!half_made.exists());
    let missing = DiskStore::open_existing(&directory.file("none"));
    assert!(matches!(missing, Err(StoreError::Missing(_))));
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let disk = CrashDisk::default();
    let store = on(&disk).unwrap();
    let written = store.shared.with_database(|database| {
        let transaction = database.begin_write()?;
        let mut meta = Table::Meta.write(&transaction)?;
        meta.set(FORMAT_KEY, Some(&(FORMAT + 1)))?;
        drop(meta);
        Ok(transaction.commit()?)
    });
    written.unwrap();
    drop(store);
    let error = on(&disk).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, known } if found == known + 1));
}

#[test]
fn a_crash_at_any_operation_leaves_the_state_of_a_commit() {
    let seeds = std::env::var("HBMQTT_CRASH_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        let disk = CrashDisk::default();
        let mut store = on(&disk).unwrap();
        // Compactions are part of it.
        store.compacts_above_bytes = 0;
        disk.forget();
        let sets = workload(seed, 150);
        let states = states(&sets);
        // The operations that were done when each state was acknowledged.
        let mut acknowledged = vec![0];
        state(&store).unwrap();
        for set in &sets {
            store.write(set).unwrap();
            acknowledged.push(disk.operations());
        }
        let mut random = Random::new(seed);
        for operations in 0..=disk.operations() {
            let after = disk.crash(operations, &mut random);
            let found = on(&after).and_then(|store| state(&store));
            let (found, _) = found.unwrap_or_else(|error| {
                panic!("seed {seed}, {operations} operations: {error}");
            });
            let done = acknowledged.partition_point(|at| *at <= operations);
            // The one that was being written may be there.
            let possible = &states[done - 1..(done + 1).min(states.len())];
            assert!(
                possible.contains(&found),
                "seed {seed}, {operations} operations"
            );
            // A crash while it is read back is another such crash.
            if operations % 7 == 0 {
                let at = random.below(after.operations() as u64 + 1);
                let after = after.crash(usize::try_from(at).unwrap(), &mut random);
                let again = on(&after).unwrap();
                assert_eq!(state(&again).unwrap().0, found, "seed {seed}, {operations}");
            }
        }
    }
}

#[test]
fn a_failed_write_is_repeated_and_a_failed_sync_is_not() {
    let sets = workload(5, 60);
    let states = states(&sets);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for operation in 0.. {
            let disk = CrashDisk::default();
            let mut store = on(&disk).unwrap();
            let before = disk.operations();
            disk.fail_after(operation, kind);
            let mut sync_failed = false;
            let mut failed = false;
            for (number, set) in sets.iter().enumerate() {
                match store.write(set) {
                    Ok(()) => continue,
                    Err(StoreError::Sync(_)) => {
                        sync_failed = true;
                        break;
                    }
                    Err(error) => {
                        let full = matches!(error, StoreError::Full(_));
                        assert_eq!(full, kind == io::ErrorKind::StorageFull, "{error}");
                        failed = true;
                    }
                }
                // Readers go on meanwhile.
                state(&store).unwrap();
                store.write(set).unwrap();
                assert_eq!(state(&store).unwrap().0, states[number + 1]);
            }
            if !sync_failed {
                assert_eq!(state(&store).unwrap().0, *states.last().unwrap());
            }
            if !sync_failed && !failed {
                // The last one is a note, which does not fail.
                assert!(disk.operations() - before <= operation + 1);
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_heals_when_there_is_room() {
    let disk = CrashDisk::default();
    let mut store = on(&disk).unwrap();
    disk.set_room(false);
    let mut written = Vec::new();
    let mut sets = workload(7, 4000).into_iter();
    let refused = loop {
        let set = sets.next().expect("the disk is never full");
        match store.write(&set) {
            Ok(()) => written.push(set),
            Err(StoreError::Full(_)) => break set,
            Err(error) => panic!("{error}"),
        }
    };
    let expected = states(&written).pop().unwrap();
    assert_eq!(state(&store).unwrap().0, expected);
    assert!(matches!(store.write(&refused), Err(StoreError::Full(_))));
    assert_eq!(state(&store).unwrap().0, expected);
    disk.set_room(true);
    store.write(&refused).unwrap();
    written.push(refused);
    assert_eq!(state(&store).unwrap().0, states(&written).pop().unwrap());
}

#[test]
fn a_damaged_value_is_named() {
    let disk = CrashDisk::default();
    let mut store = on(&disk).unwrap();
    for set in workload(1, 400) {
        store.write(&set).unwrap();
    }
    let late = Change::PutIncoming(SessionKey(5000), crate::proto::PacketId::MIN);
    store.write(&ChangeSet::of([late])).unwrap();
    for table in Table::ALL {
        let name: &'static str = table.name();
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
        let mut known = None;
        let damage = |value: Option<Vec<u8>>, known: &mut Option<(Vec<u8>, Vec<u8>)>| {
            store
                .shared
                .with_database(|database| {
                    let transaction = database.begin_write()?;
                    let mut rows = transaction.open_table(definition)?;
                    let first = redb::ReadableTable::first(&rows)?
                        .map(|(key, value)| (key.value().to_owned(), value.value().to_owned()));
                    let (key, old) = first.expect(name);
                    let new = value.unwrap_or_else(|| {
                        let mut new = old.clone();
                        let middle = new.len() / 2;
                        new[middle] ^= 1;
                        new
                    });
                    rows.insert(&key[..], &new[..])?;
                    known.get_or_insert((key, old));
                    drop(rows);
                    Ok(transaction.commit()?)
                })
                .unwrap();
        };
        damage(None, &mut known);
        let error = if table == Table::Meta {
            let copy = CrashDisk::with_bytes(disk.bytes());
            on(&copy).unwrap_err()
        } else {
            state(&store).unwrap_err()
        };
        let StoreError::Damaged(named) = error else {
            panic!("{error:?}");
        };
        assert_eq!(named.file, Path::new("crash.redb"));
        assert!(named.place.contains(name), "{named}");
        assert!(named.to_string().contains("salvage"), "{named}");
        let (_, old) = known.clone().unwrap();
        damage(Some(old), &mut known);
    }
    state(&store).unwrap();
}

#[test]
fn damage_of_the_file_is_an_error_or_without_effect() {
    let disk = CrashDisk::default();
    let mut store = on(&disk).unwrap();
    let sets = workload(2, 300);
    for set in &sets {
        store.write(set).unwrap();
    }
    drop(store);
    let whole = disk.bytes();
    let expected = states(&sets).pop().unwrap();
    let mut random = Random::new(3);
    let mut refused = 0;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(4) {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            let end = (at + 64).min(bytes.len());
            bytes[at..end].fill(0xEE);
        }
        match on(&CrashDisk::with_bytes(bytes)).and_then(|store| state(&store)) {
            Ok((found, _)) => assert_eq!(found, expected),
            Err(StoreError::Damaged(_) | StoreError::Read(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
}

/// A damaged last commit is not taken for one that a crash left half written.
#[test]
fn damage_of_the_last_commit_is_not_taken_for_a_torn_write() {
    let disk = CrashDisk::default();
    let mut store = on(&disk).unwrap();
    let sets = workload(8, 200);
    for set in &sets {
        store.write(set).unwrap();
    }
    // As a process leaves it that is killed.
    let whole = disk.bytes();
    let expected = states(&sets).pop().unwrap();
    let mut random = Random::new(9);
    let (mut refused, mut taken_back) = (0, 0);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        let end = (at + 16).min(bytes.len());
        bytes[at..end].fill(0xEE);
        match on(&disk.with_other_bytes(bytes.clone())).and_then(|store| state(&store)) {
            Ok((found, _)) => assert_eq!(found, expected),
            Err(StoreError::Damaged(damage)) if damage.place == "the last commit" => {
                assert!(damage.what.contains("was durable"), "{damage}");
                refused += 1;
            }
            Err(StoreError::Damaged(_) | StoreError::Read(_)) => {}
            Err(error) => panic!("{error}"),
        }
        // What the file alone says.
        let alone = on(&CrashDisk::with_bytes(bytes)).and_then(|store| state(&store));
        taken_back += u32::from(alone.is_ok_and(|(found, _)| found != expected));
    }
    assert_eq!(refused, taken_back);
    assert!(refused > 0);
}

#[test]
fn another_store_in_the_same_place_is_not_refused() {
    let directory = Directory::new();
    let file = directory.file("store.redb");
    let sets = workload(3, 100);
    let mut store = DiskStore::open(&file).unwrap();
    for set in &sets {
        store.write(set).unwrap();
    }
    let copy = directory.file("copy.redb");
    store.snapshot().unwrap().copy_to(&copy).unwrap();
    drop(store);
    let note = progress::NoteFile::of(&file).read().unwrap();
    assert_eq!(note.writes, sets.len() as u64);
    fs::rename(&copy, &file).unwrap();
    let mut store = DiskStore::open(&file).unwrap();
    assert_eq!(state(&store).unwrap().0, states(&sets).pop().unwrap());
    store.write(&sets[0]).unwrap();
    drop(store);
    fs::remove_file(&file).unwrap();
    DiskStore::open(&file).unwrap();
}

#[test]
fn a_store_that_is_behind_is_refused_and_can_be_salvaged() {
    let directory = Directory::new();
    let file = directory.file("store.redb");
    let sets = workload(3, 100);
    let half = sets.len() / 2;
    let mut store = DiskStore::open(&file).unwrap();
    for set in &sets[..half] {
        store.write(set).unwrap();
    }
    drop(store);
    let old = fs::read(&file).unwrap();
    let mut store = DiskStore::open(&file).unwrap();
    for set in &sets[half..] {
        store.write(set).unwrap();
    }
    drop(store);
    fs::write(&file, old).unwrap();
    for _ in 0..2 {
        let error = DiskStore::open(&file).unwrap_err().to_string();
        assert!(
            error.contains("store.redb: damaged at the last commit"),
            "{error}"
        );
    }
    let mut losses = Vec::new();
    let to = directory.file("salvaged.redb");
    salvage(&file, &to, &mut |loss| losses.push(loss.to_owned())).unwrap();
    assert!(losses[0].contains("was durable"), "{losses:?}");
    let salvaged = DiskStore::open_existing(&to).unwrap();
    assert_eq!(
        state(&salvaged).unwrap().0.sessions,
        states(&sets)[half].sessions
    );
}

#[test]
fn a_snapshot_is_the_state_of_its_moment() {
    let directory = Directory::new();
    let mut store = DiskStore::open(&directory.file("store.redb")).unwrap();
    let sets = workload(4, 400);
    let states = states(&sets);
    let half = sets.len() / 2;
    for set in &sets[..half] {
        store.write(set).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    for set in &sets[half..] {
        store.write(set).unwrap();
    }
    let copy = directory.file("copy.redb");
    snapshot.copy_to(&copy).unwrap();
    let copied = DiskStore::open_existing(&copy).unwrap();
    assert_eq!(state(&copied).unwrap().0, states[half]);
    let again = store.snapshot().unwrap().copy_to(&copy);
    assert!(matches!(again, Err(StoreError::Exists(_))));
    // The store, its note and the copy.
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 3);
}

#[test]
fn space_is_given_back_when_the_store_is_mostly_empty() {
    let disk = CrashDisk::default();
    let mut store = on(&disk).unwrap();
    store.compacts_above_bytes = 1024 * 1024;
    state(&store).unwrap();
    let puts = history(&[(8, 0, 250); 2000]);
    store.write(&ChangeSet::of(puts.clone())).unwrap();
    let full_bytes = store.size_bytes();
    let deletes = puts.iter().filter_map(|change| match change {
        Change::PutMessage(id, _) => Some(Change::DeleteMessage(*id)),
        _ => None,
    });
    store.write(&ChangeSet::of(deletes)).unwrap();
    assert!(store.size_bytes() * 2 < full_bytes, "{full_bytes}");
    assert!(state(&store).unwrap().0.messages.is_empty());
}
