//! `hbmqtt store …`.

use std::fs;
use std::num::NonZeroU64;
use std::path::Path;

use hbmqtt::proto::{Message, ProtocolVersion, QoS, TopicName};
use hbmqtt::store::{
    self, Change, ChangeSet, Control, DiskStore, Durability, EntryRecord, EntryState, MessageId,
    MessageRecord, Position, RetainedRecord, SessionKey, SessionRecord, Store,
};

use super::*;

const COUNT: u64 = 500;

fn message(payload: impl Into<bytes::Bytes>) -> MessageRecord {
    let topic = TopicName::parse("sensors/1").unwrap();
    MessageRecord {
        message: Arc::new(Message::new(topic, payload)),
        expires_at: None,
    }
}

fn id(id: u64) -> MessageId {
    MessageId(NonZeroU64::new(id).unwrap())
}

/// A session with a queue of [`COUNT`] messages and a retained one.
fn fill(file: &Path) -> DiskStore {
    let mut store = DiskStore::open(file).unwrap();
    let session = SessionRecord {
        client_id: "meter".into(),
        user: None,
        listener: "default".into(),
        version: ProtocolVersion::V5,
        expiry_seconds: 3600,
        disconnected_at: None,
        will: None,
    };
    let mut set = ChangeSet::of([
        Change::PutSession(SessionKey(1), Box::new(session)),
        Change::PutRetained(Box::new(RetainedRecord {
            message: message(vec![0xFF, 0x00]),
            publisher: None,
        })),
    ]);
    for number in 1..=COUNT {
        set.push(Change::PutMessage(
            id(number),
            message(format!("value {number}")),
        ));
        let entry = EntryRecord {
            message: Some(id(number)),
            size_bytes: 100,
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: None,
            group: None,
            state: EntryState::Waiting,
        };
        set.push(Change::PutEntry(SessionKey(1), Position(number), entry));
    }
    store.write(&set).unwrap();
    store
}

fn tool(arguments: &[&str]) -> Finished {
    run(BROKER, &[&["store"], arguments].concat())
}

#[test]
fn a_store_is_checked_counted_and_exported() {
    let directory = TempDir::new();
    let data = directory.path().join("data");
    let path = data.to_str().unwrap();
    tool(&["check", path]).expect(1);
    let open = fill(&data.join("store.redb"));
    let locked = tool(&["check", path]).expect(1);
    assert!(
        locked.errors.contains("another process has the store open"),
        "{}",
        locked.errors
    );
    drop(open);
    let whole = tool(&["check", path]).expect(0);
    assert!(whole.text().contains("whole, 1002 records"), "{whole:?}");
    let stats = tool(&["stats", "--json", path]).expect(0);
    let stats: serde_json::Value = serde_json::from_slice(&stats.output).unwrap();
    assert_eq!(stats["queued-messages"]["count"], COUNT);
    assert!(tool(&["stats", path]).expect(0).text().contains("sessions"));
    let export = tool(&["export", path]).expect(0);
    let lines: Vec<serde_json::Value> = export
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1002);
    assert_eq!(lines[0]["client-id"], "meter");
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!(
        (of("queue-entry"), of("message"), of("retained")),
        (500, 500, 1)
    );
    let binary = lines
        .iter()
        .find(|line| line["kind"] == "retained")
        .unwrap();
    assert_eq!(
        (&binary["payload"], &binary["encoding"]),
        (&"/wA=".into(), &"base64".into())
    );
}

#[test]
fn a_damaged_store_is_named_and_salvaged() {
    let directory = TempDir::new();
    let file = directory.path().join("store.redb");
    drop(fill(&file));
    let mut bytes = fs::read(&file).unwrap();
    let damaged = (4096..bytes.len())
        .step_by(4096)
        .filter(|at| {
            bytes[at + 100..at + 4000]
                .windows(6)
                .any(|part| part == b"value ")
        })
        .nth(3)
        .unwrap();
    bytes[damaged + 50..damaged + 4000].fill(0xEE);
    fs::write(&file, bytes).unwrap();
    let path = file.to_str().unwrap();
    let refused = tool(&["check", path]).expect(1);
    assert!(
        refused.errors.contains("store.redb: damaged at")
            && refused.errors.contains("hbmqtt store salvage"),
        "{}",
        refused.errors
    );
    let new = directory.path().join("new.redb");
    let new = new.to_str().unwrap();
    let salvaged = tool(&["salvage", path, new]).expect(0);
    assert!(salvaged.errors.contains("table messages"), "{salvaged:?}");
    tool(&["salvage", path, new]).expect(1);
    tool(&["check", new]).expect(0);
    let stats = tool(&["stats", "--json", new]).expect(0);
    let stats: serde_json::Value = serde_json::from_slice(&stats.output).unwrap();
    let kept = stats["queued-messages"]["count"].as_u64().unwrap();
    assert!(kept > COUNT * 8 / 10 && kept < COUNT, "{kept}");
}

#[test]
fn a_backup_is_taken_while_the_store_is_open_or_not() {
    let directory = TempDir::new();
    let file = directory.path().join("store.redb");
    let open = fill(&file);
    let (handle, inbox) = store::channel::<()>();
    let serving = std::thread::spawn(move || {
        inbox.run(Box::new(open), Durability::Group, Arc::new(|_| {}));
    });
    let control = Control::start(&file, handle.clone()).unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let copy = |name| directory.path().join(name).to_str().unwrap().to_owned();
    tool(&["backup", &path, &copy("online")]).expect(0);
    let again = tool(&["backup", &path, &copy("online")]).expect(1);
    assert!(again.errors.contains("exists already"), "{}", again.errors);
    handle.stop();
    serving.join().unwrap();
    drop(control);
    tool(&["backup", &path, &copy("offline")]).expect(0);
    for name in ["online", "offline"] {
        let whole = tool(&["check", &copy(name)]).expect(0);
        assert!(whole.text().contains("1002 records"), "{whole:?}");
    }
}

#[test]
fn the_command_line_is_checked() {
    for arguments in [
        &[][..],
        &["look", "/x"],
        &["check"],
        &["check", "/x", "/y"],
        &["salvage", "/x"],
        &["backup", "/x", "/y", "/z"],
        &["check", "--json", "/x"],
        &["--nonsense"],
    ] {
        tool(arguments).expect(2);
    }
    assert!(tool(&["--help"]).expect(0).text().contains("salvage"));
    tool(&["--version"]).expect(0);
    tool(&["check", "/nonexistent/store.redb"]).expect(1);
}

/// The guide has every option.
#[test]
fn the_guide_names_every_option_of_store() {
    let guide = include_str!("../../../docs/tools.md");
    for word in [
        "hbmqtt store check",
        "stats",
        "export",
        "salvage",
        "backup",
        "`--json`",
    ] {
        assert!(guide.contains(word), "{word}");
    }
}

/// Issue 5: a consistent copy, without stopping the broker.
#[test]
fn a_running_broker_copies_its_store() {
    let directory = TempDir::new();
    let data = directory.path().join("data");
    let config = format!(
        "listeners: {{default: {{bind: 127.0.0.1:0}}}}\npersistence: {{path: {}}}\n",
        data.display()
    );
    let config = directory.file("broker.yaml", config);
    let broker = Tool::start(BROKER, &["-c", &config]);
    let line = broker
        .errors
        .wait_for("the start", |line| line.contains("bind to"));
    let (_, rest) = line.split_once("127.0.0.1:").unwrap();
    let port = rest.split(' ').next().unwrap();
    let url = format!("mqtt://127.0.0.1:{port}");
    run(
        PUB,
        &["--url", &url, "-t", "a", "-m", "kept", "-q", "1", "-r"],
    )
    .expect(0);
    let copy = directory.path().join("copy.redb");
    let copy = copy.to_str().unwrap();
    tool(&["backup", data.to_str().unwrap(), copy]).expect(0);
    let export = tool(&["export", copy]).expect(0);
    assert!(export.text().contains("\"payload\":\"kept\""), "{export:?}");
    tool(&["check", data.to_str().unwrap()]).expect(1);
    broker.signal("TERM");
    broker.wait_for_end().expect(0);
    assert!(!data.join("control").exists());
    tool(&["check", data.to_str().unwrap()]).expect(0);
}
