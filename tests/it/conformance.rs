//! `docs/conformance.md` against the tests that exist: every row names tests that are there, or says why there is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::layers::rust_files;

/// The row ids that the table must have, by prefix and highest number; for the specification by section.
const ROWS: &[(&str, u32)] = &[
    ("SEED", 11),
    ("DEC", 23),
    ("PUB", 24),
    ("SUB", 22),
    ("BRK", 7),
    ("CC", 15),
    ("BC", 21),
    ("URL", 7),
    ("CAPI", 17),
    ("BAPI", 6),
    ("MSG", 9),
    ("ERR", 9),
    ("PLG", 17),
    ("SYS", 14),
    ("LOG", 9),
    ("PRO", 17),
    ("BUG", 26),
    ("MQTT311-1.5.3", 3),
    ("MQTT311-2.2.2", 2),
    ("MQTT311-2.3.1", 7),
    ("MQTT311-3.1.0", 2),
    ("MQTT311-3.1.2", 24),
    ("MQTT311-3.1.3", 11),
    ("MQTT311-3.1.4", 5),
    ("MQTT311-3.2.0", 1),
    ("MQTT311-3.2.2", 6),
    ("MQTT311-3.3.1", 12),
    ("MQTT311-3.3.2", 3),
    ("MQTT311-3.3.4", 1),
    ("MQTT311-3.3.5", 2),
    ("MQTT311-3.6.1", 1),
    ("MQTT311-3.8.1", 1),
    ("MQTT311-3.8.3", 4),
    ("MQTT311-3.8.4", 6),
    ("MQTT311-3.9.3", 2),
    ("MQTT311-3.10.1", 1),
    ("MQTT311-3.10.3", 2),
    ("MQTT311-3.10.4", 6),
    ("MQTT311-3.12.4", 1),
    ("MQTT311-3.14.1", 1),
    ("MQTT311-3.14.4", 3),
    ("MQTT311-4.1.0", 2),
    ("MQTT311-4.2.0", 1),
    ("MQTT311-4.3.1", 1),
    ("MQTT311-4.3.2", 2),
    ("MQTT311-4.3.3", 2),
    ("MQTT311-4.4.0", 1),
    ("MQTT311-4.5.0", 2),
    ("MQTT311-4.6.0", 6),
    ("MQTT311-4.7.1", 3),
    ("MQTT311-4.7.2", 1),
    ("MQTT311-4.7.3", 4),
    ("MQTT311-4.8.0", 2),
    ("MQTT311-6.0.0", 4),
    ("MQTT311-7.0.0", 2),
    ("MQTT311-7.1.1", 1),
    ("MQTT311-7.1.2", 1),
];

#[test]
fn every_row_names_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = tests_of(root);
    let table = fs::read_to_string(root.join("docs/conformance.md")).expect("docs/conformance.md");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, line) in table.lines().enumerate() {
        let Some(row) = Row::parse(line) else {
            continue;
        };
        let place = format!("docs/conformance.md:{}: {}", number + 1, row.id);
        if !seen.insert(row.id.clone()) {
            wrong.push(format!("{place}: a second row"));
        }
        if row.tests.is_empty() && row.reason.is_empty() {
            wrong.push(format!("{place}: neither a test nor a reason"));
        }
        for test in row.tests.iter().filter(|test| !exists(test, &tests)) {
            wrong.push(format!("{place}: no test `{test}`"));
        }
    }
    for (prefix, last) in ROWS {
        for number in 1..=*last {
            let id = format!("{prefix}-{number}");
            if !seen.contains(&id) {
                wrong.push(format!("docs/conformance.md: {id} has no row"));
            }
        }
    }
    for code in hbmqtt::ReasonCode::ALL {
        let id = format!("0x{:02X} {}", code.as_u8(), code.name());
        if !seen.contains(&id) {
            wrong.push(format!("docs/conformance.md: {id} has no row"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows of {} are wrong:\n{}",
        wrong.len(),
        seen.len(),
        wrong.join("\n")
    );
}

/// A line `| id | statement | tests or reason |`. Tests stand in backquotes; what else is in the cell is the reason.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    tests: Vec<String>,
    reason: String,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<_> = line
            .strip_prefix('|')?
            .strip_suffix('|')?
            .split('|')
            .map(str::trim)
            .collect();
        let [id, _, shown] = cells[..] else {
            return None;
        };
        if id.is_empty() || id == "id" || id.starts_with('-') {
            return None;
        }
        let mut row = Self {
            id: id.to_owned(),
            tests: Vec::new(),
            reason: String::new(),
        };
        for (at, piece) in shown.split('`').enumerate() {
            if at % 2 == 1 {
                row.tests.push(piece.to_owned());
            } else {
                row.reason += piece;
            }
        }
        row.reason = row.reason.trim_matches([' ', ',', ';', '.']).to_owned();
        Some(row)
    }
}

/// The paths of all tests, `module::module::name`, without the modules that are called `tests`.
fn tests_of(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "tests/it", "docs/examples"] {
        let folder = root.join(folder);
        if !folder.exists() {
            continue;
        }
        for path in rust_files(&folder) {
            let modules: Vec<_> = path
                .strip_prefix(&folder)
                .unwrap()
                .with_extension("")
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .filter(|part| !["mod", "tests", "main", "lib"].contains(&part.as_str()))
                .collect();
            for name in test_names(&fs::read_to_string(&path).unwrap()) {
                let mut path = modules.clone();
                path.push(name);
                found.insert(path.join("::"));
            }
        }
    }
    found
}

/// The functions that follow a `#[test]`.
fn test_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.push(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
            is_test = false;
        }
    }
    names
}

/// `test` is the tail of the path of one of `tests`.
fn exists(test: &str, tests: &BTreeSet<String>) -> bool {
    tests
        .iter()
        .any(|path| path == test || path.ends_with(&format!("::{test}")))
}

#[test]
fn the_check_finds_tests_and_reasons() {
    assert_eq!(
        Row::parse("| PUB-1 | prints its version | `cli::a`, `b` |").unwrap(),
        Row {
            id: "PUB-1".into(),
            tests: vec!["cli::a".into(), "b".into()],
            reason: String::new()
        }
    );
    assert_eq!(
        Row::parse("| PUB-2 | x | not testable |").unwrap().reason,
        "not testable"
    );
    assert!(
        Row::parse("| --- | --- | --- |").is_none()
            && Row::parse("| id | statement | shown by |").is_none()
    );
    assert_eq!(
        test_names("#[test]\nfn a() {}\nfn b() {}\n    #[test]\n    fn c() {"),
        ["a", "c"]
    );
    let tests = BTreeSet::from(["conformance::a".to_owned()]);
    assert!(exists("a", &tests) && exists("conformance::a", &tests) && !exists("ance::a", &tests));
}
