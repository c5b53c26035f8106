//! `hbmqtt store …`: looks into a store, copies it, and reads what can be read of a damaged one.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};
use base64ct::{Base64, Encoding};
use hbmqtt::proto::packet::publish::PublishProperties;
use hbmqtt::store::{
    self, Contents, DiskStore, EntryState, FILE_NAME, Loaded, MessageRecord, Rows, Store,
    StoreError,
};
use serde_json::{Map, Value, json};

use crate::shared::args::{Table, Words};
use crate::shared::exit::{self, Failure};
use crate::shared::manual;
use crate::shared::program::Program;

/// Looks into the store of a broker, copies it, and reads what can be read of a damaged one. PATH is the broker's
/// persistence.path, or the file itself. All but backup need the broker stopped.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "check PATH
       hbmqtt store stats [--json] PATH
       hbmqtt store export PATH
       hbmqtt store salvage PATH NEW_FILE
       hbmqtt store backup PATH NEW_FILE"
)]
struct Args {
    /// check, stats, export, salvage or backup; the store; and for the last two the file to make
    #[argh(positional, arg_name = "command path file")]
    words: Vec<String>,
    /// print the figures of stats as a JSON object
    #[argh(switch)]
    json: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// print the manual page, roff
    #[argh(switch)]
    man: bool,
}

const TABLE: Table = Table {
    aliases: &[],
    letters: &[],
    preferred: &[],
    words: Words::Positional,
    property: None,
    shorthands: &[],
    groups: &[],
    options_file: None,
    environment: &[],
};

const PROGRAM: Program = Program {
    name: "hbmqtt store",
    table: &TABLE,
    page: &PAGE,
};

const PAGE: manual::Page = manual::Page {
    summary: "the store of an MQTT broker from inside",
    synopsis: &[
        "check|export PATH",
        "stats [--json] PATH",
        "salvage|backup PATH NEW_FILE",
    ],
    statuses: &[
        (
            "0",
            "The store is whole; the figures, lines or copy are written.",
        ),
        (
            "1",
            "The store is damaged or does not fit together, a broker has it open, or a file cannot be read or written.",
        ),
        ("2", "The command line cannot be understood."),
    ],
    examples: &[
        (
            "hbmqtt store backup /var/lib/hbmqtt /var/backups/hbmqtt.redb",
            "A consistent copy, while the broker runs.",
        ),
        (
            "hbmqtt store export /var/lib/hbmqtt | grep '\"kind\":\"session\"'",
            "The sessions.",
        ),
    ],
    files: &[],
};

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    PROGRAM.main(arguments.iter().cloned(), None, run)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature of a program's run"
)]
fn run(args: Args) -> Result<u8, Failure> {
    if let Some(answer) = PROGRAM.answer::<Args>(args.version, None, args.man) {
        return answer;
    }
    let words: Vec<_> = args.words.iter().map(String::as_str).collect();
    if args.json && words.first() != Some(&"stats") {
        return Err(Failure::usage("--json is an option of stats"));
    }
    match words[..] {
        [] => Err(Failure::usage(
            "the command is missing: check, stats, export, salvage or backup",
        )),
        ["check", path] => check(&store_file(path)),
        ["stats", path] => stats(&store_file(path), args.json),
        ["export", path] => export(&store_file(path)),
        ["salvage", path, to] => salvage(&store_file(path), Path::new(to)),
        ["backup", path, to] => backup(&store_file(path), Path::new(to)),
        ["salvage" | "backup", _] => Err(Failure::usage("the file to make is missing")),
        ["check" | "stats" | "export" | "salvage" | "backup"] => {
            Err(Failure::usage("the path of the store is missing"))
        }
        ["check" | "stats" | "export", _, more, ..] | ["salvage" | "backup", _, _, more, ..] => {
            Err(Failure::usage(format!("unexpected argument '{more}'")))
        }
        [command, ..] => Err(Failure::usage(format!(
            "unknown command '{}'; there are check, stats, export, salvage and backup",
            command.escape_debug()
        ))),
    }
}

/// The store's file, given that or its directory.
fn store_file(path: &str) -> PathBuf {
    let path = Path::new(path);
    if path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path.to_owned()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failure(error: StoreError) -> Failure {
    Failure::failed(error.to_string())
}

fn check(file: &Path) -> Result<u8, Failure> {
    let mut store = DiskStore::open_existing(file).map_err(failure)?;
    let mut notes = 0;
    let contents = store.check(&mut |note| {
        notes += 1;
        exit::say(PROGRAM.name, note);
    });
    let contents = contents.map_err(failure)?;
    if notes > 0 {
        return Err(Failure::failed(format!(
            "{}: every value is whole, but {notes} do not fit together",
            file.display()
        )));
    }
    let rows: u64 = kinds(&contents).iter().map(|(_, rows)| rows.count).sum();
    exit::print(&format!("{}: whole, {rows} records\n", file.display()))
}

fn stats(file: &Path, as_json: bool) -> Result<u8, Failure> {
    let store = DiskStore::open_existing(file).map_err(failure)?;
    let contents = store.contents().map_err(failure)?;
    if as_json {
        let mut object = Map::new();
        for (kind, rows) in kinds(&contents) {
            let figures = json!({"count": rows.count, "bytes": rows.bytes});
            object.insert(kind.to_owned(), figures);
        }
        object.insert("file-bytes".to_owned(), contents.file_bytes.into());
        return exit::print(&format!("{}\n", Value::from(object)));
    }
    let mut text = format!("{:<24}{:>12}{:>16}\n", "", "count", "bytes");
    for (kind, rows) in kinds(&contents) {
        text.push_str(&format!("{kind:<24}{:>12}{:>16}\n", rows.count, rows.bytes));
    }
    text.push_str(&format!("{:<36}{:>16}\n", "file", contents.file_bytes));
    exit::print(&text)
}

fn kinds(contents: &Contents) -> [(&'static str, Rows); 6] {
    let Contents {
        sessions,
        subscriptions,
        incoming,
        entries,
        messages,
        retained,
        file_bytes: _,
    } = *contents;
    [
        ("sessions", sessions),
        ("subscriptions", subscriptions),
        ("incoming-qos2", incoming),
        ("queue-entries", entries),
        ("queued-messages", messages),
        ("retained-messages", retained),
    ]
}

fn salvage(file: &Path, to: &Path) -> Result<u8, Failure> {
    // The database panics at some kinds of damage; each is caught, and told as a loss.
    std::panic::set_hook(Box::new(|_| {}));
    let salvaged = store::salvage(file, to, &mut |note| exit::say(PROGRAM.name, note));
    let _ = std::panic::take_hook();
    let salvaged = salvaged.map_err(failure)?;
    exit::print(&format!(
        "{}: {} records; {} losses\n",
        to.display(),
        salvaged.kept,
        salvaged.losses
    ))
}

fn backup(file: &Path, to: &Path) -> Result<u8, Failure> {
    let named = |error: io::Error| Failure::failed(format!("{}: {error}", to.display()));
    let absolute = std::path::absolute(to).map_err(named)?;
    let copied = match store::request_backup(file, &absolute) {
        Some(copied) => copied,
        None => copy_stopped(file, to),
    };
    copied.map_err(failure).map(|()| exit::OK)
}

fn copy_stopped(file: &Path, to: &Path) -> Result<(), StoreError> {
    let store = DiskStore::open_existing(file)?;
    let snapshot = store.snapshot()?;
    snapshot.copy_to(to)
}

/// Writes everything as JSON, an object a line.
fn export(file: &Path) -> Result<u8, Failure> {
    let store = DiskStore::open_existing(file).map_err(failure)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut broken: Option<io::Error> = None;
    let mut line = |value: Value| {
        writeln!(out, "{value}").map_err(|error| {
            broken = Some(error);
            StoreError::Closed
        })
    };
    let exported = store
        .load(&mut |loaded| line(loaded_json(loaded)))
        .and_then(|_| {
            store.each_message(&mut |id, record| {
                let mut object = message_json("message", &record);
                object.insert("message".to_owned(), id.0.get().into());
                line(object.into())
            })
        });
    let flushed = out.flush().err();
    match broken.or(flushed) {
        // Nobody reads it any longer.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Some(error) => Err(Failure::failed(format!("standard output: {error}"))),
        None => exported.map_err(failure).map(|()| exit::OK),
    }
}

fn loaded_json(loaded: Loaded) -> Value {
    match loaded {
        Loaded::Session(key, record) => json!({
            "kind": "session",
            "session": key.0,
            "client-id": &*record.client_id,
            "user": record.user.as_deref(),
            "listener": &*record.listener,
            "protocol": record.version.to_string(),
            "expiry": record.expiry_seconds,
            "disconnected-at-ms": record.disconnected_at.map(|at| at.0),
            "will": record.will.map(|will| {
                let will = will.will;
                let mut object = json!({
                    "topic": &*will.topic,
                    "qos": will.qos.as_u8(),
                    "retain": will.retain,
                    "delay": will.delay_interval,
                });
                if let Some(object) = object.as_object_mut() {
                    put_payload(object, &will.payload);
                    put_properties(object, will.properties.as_deref());
                }
                object
            }),
        }),
        Loaded::Subscription(key, filter, record) => json!({
            "kind": "subscription",
            "session": key.0,
            "filter": &*filter,
            "qos": record.options.qos.as_u8(),
            "no-local": record.options.no_local,
            "retain-as-published": record.options.retain_as_published,
            "retain-handling": record.options.retain_handling as u8,
            "id": record.id,
        }),
        Loaded::Incoming(key, id) => json!({
            "kind": "incoming-qos2",
            "session": key.0,
            "packet-id": id.value(),
        }),
        Loaded::Entry(key, position, record) => {
            let (state, packet_id) = match record.state {
                EntryState::Waiting => ("waiting", None),
                EntryState::Sent(id) => ("sent", Some(id.value())),
                EntryState::Released(id) => ("released", Some(id.value())),
            };
            json!({
                "kind": "queue-entry",
                "session": key.0,
                "position": position.0,
                "message": record.message.map(|id| id.0.get()),
                "qos": record.qos.as_u8(),
                "retain": record.retain,
                "subscription-ids": record.ids.as_deref(),
                "shared": record.group.as_deref(),
                "state": state,
                "packet-id": packet_id,
            })
        }
        Loaded::Retained(record) => {
            let mut object = message_json("retained", &record.message);
            let publisher = record.publisher.map(|publisher| {
                json!({
                    "client-id": &*publisher.client_id,
                    "user": publisher.user.as_deref(),
                    "listener": &*publisher.listener,
                })
            });
            object.insert("publisher".to_owned(), publisher.into());
            object.into()
        }
    }
}

fn message_json(kind: &str, record: &MessageRecord) -> Map<String, Value> {
    let message = &record.message;
    let mut object = Map::new();
    object.insert("kind".to_owned(), kind.into());
    object.insert("topic".to_owned(), message.topic.as_str().into());
    object.insert("qos".to_owned(), message.qos.as_u8().into());
    object.insert("retain".to_owned(), message.retain.into());
    if let Some(at) = record.expires_at {
        object.insert("expires-at-ms".to_owned(), at.0.into());
    }
    put_properties(&mut object, message.properties.as_deref());
    put_payload(&mut object, &message.payload);
    object
}

/// As text, or as Base64 with `"encoding": "base64"` when it is not UTF-8.
fn put_payload(object: &mut Map<String, Value>, payload: &[u8]) {
    let text = if let Ok(text) = std::str::from_utf8(payload) {
        text.to_owned()
    } else {
        object.insert("encoding".to_owned(), "base64".into());
        Base64::encode_string(payload)
    };
    object.insert("payload".to_owned(), text.into());
}

fn put_properties(object: &mut Map<String, Value>, properties: Option<&PublishProperties>) {
    let Some(properties) = properties else {
        return;
    };
    let user = properties.user_properties.iter();
    let user: Vec<_> = user
        .map(|(name, value)| json!([&**name, &**value]))
        .collect();
    let correlation_data = properties.correlation_data.as_deref();
    let properties = json!({
        "payload-format-utf8": properties.payload_format_utf8,
        "message-expiry-interval": properties.message_expiry_interval,
        "content-type": properties.content_type.as_deref(),
        "response-topic": properties.response_topic.as_deref(),
        "correlation-data-base64": correlation_data.map(Base64::encode_string),
        "user-properties": user,
    });
    object.insert("properties".to_owned(), properties);
}
