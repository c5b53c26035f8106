//! The layers of the sources (docs/architecture.md): which module may know of which. Strict, so a test keeps them.

use std::fs;
use std::path::{Path, PathBuf};

/// A rule: no line of code under `under` may contain one of `forbidden`, except in the files of `except`.
struct Rule {
    under: &'static str,
    forbidden: &'static [&'static str],
    except: &'static [&'static str],
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        under: "proto",
        forbidden: &[
            "std::net",
            "std::thread",
            "std::io",
            "std::fs",
            "log::",
            "Instant::now",
            "SystemTime::now",
            "parking_lot",
            "crossbeam",
            "Mutex",
            "RwLock",
            "crate::net",
            "crate::broker",
            "crate::client",
            "crate::outbox",
            "crate::thread",
            "crate::yaml",
            "crate::store",
        ],
        except: &[],
        because: "proto is sans-IO and knows nothing of ours but itself",
    },
    Rule {
        under: "net",
        forbidden: &[
            "crate::proto",
            "crate::broker",
            "crate::client",
            "crate::outbox",
            "crate::yaml",
            "crate::store",
        ],
        except: &[],
        because: "net knows bytes, not MQTT",
    },
    Rule {
        under: "outbox",
        forbidden: &["crate::broker", "crate::client"],
        except: &[],
        because: "the outbox serves both sides",
    },
    Rule {
        under: "store",
        forbidden: &[
            "crate::broker",
            "crate::client",
            "crate::net",
            "crate::outbox",
        ],
        except: &[],
        because: "the store serves both sides, and knows what is kept, not why",
    },
    Rule {
        under: "broker",
        forbidden: &["crate::client"],
        except: &["broker/bridge.rs"],
        because: "broker and client never import each other; the bridge uses the client",
    },
    Rule {
        under: "client",
        forbidden: &["crate::broker"],
        except: &[],
        because: "broker and client never import each other",
    },
    Rule {
        under: "",
        forbidden: &["ProtocolVersion::V"],
        except: &[
            "proto/",
            "broker/connection/handshake.rs",
            "client/handshake.rs",
            "bin/",
            "client/options.rs",
        ],
        because: "a version question has its homes; elsewhere ask for the ability",
    },
    Rule {
        under: "",
        forbidden: &["std::thread::spawn", "thread::Builder", "thread::sleep"],
        except: &["thread.rs"],
        because: "thread.rs is the only caller of std::thread",
    },
    Rule {
        under: "",
        forbidden: &["unsafe "],
        except: &[],
        because: "no unsafe code",
    },
];

#[test]
fn the_sources_keep_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for path in rust_files(&root) {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let rules = RULES.iter().filter(|rule| {
            name.starts_with(rule.under) && !rule.except.iter().any(|free| name.starts_with(free))
        });
        for rule in rules {
            for (number, line) in code_lines(&source) {
                for word in rule.forbidden {
                    if mentions(line, word) {
                        broken.push(format!("src/{name}:{number}: `{word}`: {}", rule.because));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_file_is_named_for_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files(&root) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !["util", "utils", "types", "common", "helpers", "misc"].contains(&stem),
            "{} has no name yet",
            path.display()
        );
    }
}

/// All `.rs` files below `folder`.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The lines that are code of the product: no comments, and nothing from `#[cfg(test)]` at the start of a line on.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

/// `word` stands in `line`, not as the tail of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn a_rule_sees_code_but_not_comments_and_tests() {
    let source = "use std::net::IpAddr;\n// std::thread\nlet a = catalog::x; // log::\n#[cfg(test)]\nuse std::thread;\n";
    let seen: Vec<_> = code_lines(source)
        .filter(|(_, line)| mentions(line, "std::net"))
        .collect();
    assert_eq!(seen, [(1, "use std::net::IpAddr;")]);
    assert!(
        code_lines(source)
            .all(|(_, line)| !mentions(line, "std::thread") && !mentions(line, "log::"))
    );
}
