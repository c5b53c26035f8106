use proptest::prelude::*;

use super::section::nearest;
use super::*;

fn root(text: &str) -> Node {
    match Document::parse(text) {
        Ok(document) => document.root().clone(),
        Err(error) => panic!("{text:?}: {error}"),
    }
}

fn value(text: &str) -> Value {
    root(&format!("key: {text}"))
        .get("key")
        .unwrap()
        .value
        .clone()
}

fn error(text: &str) -> String {
    Document::parse(text).unwrap_err().to_string()
}

#[test]
fn scalars_are_read_by_the_rules_of_yaml_1_2() {
    let text = |text: &str| Value::Text(text.to_owned());
    for (written, expected) in [
        ("", Value::Null),
        ("~", Value::Null),
        ("null", Value::Null),
        ("true", Value::Bool(true)),
        ("False", Value::Bool(false)),
        ("on", text("on")),
        ("no", text("no")),
        ("1883", Value::Integer(1883)),
        ("-1", Value::Integer(-1)),
        ("0x10", Value::Integer(16)),
        ("18446744073709551615", Value::Integer(u64::MAX.into())),
        ("1.5", Value::Float(1.5)),
        ("1e3", Value::Float(1_000.0)),
        ("017", text("017")),
        ("1_000", text("1_000")),
        ("1:30", text("1:30")),
        ("'1883'", text("1883")),
        ("\"a\\tb\"", text("a\tb")),
        ("a # comment", text("a")),
        ("a#b", text("a#b")),
    ] {
        assert_eq!(value(written), expected, "{written:?}");
    }
}

#[test]
fn switches_are_read_in_every_spelling() {
    for on in ["on", "ON", "yes", "Yes", "true", "'on'"] {
        assert_eq!(
            root(&format!("[{on}]")).items()[0].bool(),
            Some(true),
            "{on}"
        );
    }
    for off in ["off", "Off", "no", "NO", "false"] {
        assert_eq!(
            root(&format!("[{off}]")).items()[0].bool(),
            Some(false),
            "{off}"
        );
    }
    for other in ["1", "o", "y", "enabled", "~"] {
        assert_eq!(
            root(&format!("[{other}]")).items()[0].bool(),
            None,
            "{other}"
        );
    }
}

#[test]
fn duplicates_and_the_order_are_kept() {
    let node = root("b: 1\na: 2\nb: 3\n");
    let keys: Vec<_> = node
        .entries()
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!(keys, ["b", "a", "b"]);
    assert_eq!(node.get("b").and_then(Node::integer), Some(3));
}

#[test]
fn keys_that_are_no_texts_are_read_as_texts() {
    let node = root("1883: a\ntrue: b\non: c\n");
    let keys: Vec<_> = node
        .entries()
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!(keys, ["1883", "true", "on"]);
    assert_eq!(
        error("? [a]\n: b\n"),
        "line 1, column 1: a key must be a text"
    );
}

#[test]
fn each_value_and_key_is_found_again_in_the_text() {
    let document = Document::parse("a: 1\nb:\n  - x\n  - {c: y, d: 'z'}\n").unwrap();
    let place = |id| document.place(id).unwrap();
    let [a, b] = document.root().entries() else {
        panic!("two entries");
    };
    assert_eq!((place(a.key_id), place(a.value.id)), ((1, 1), (1, 4)));
    assert_eq!(
        (place(b.key_id), place(b.value.items()[0].id)),
        ((2, 1), (3, 5))
    );
    let map = b.value.items()[1].entries();
    assert_eq!(
        (place(map[0].key_id), place(map[0].value.id)),
        ((4, 6), (4, 9))
    );
    assert_eq!(
        (place(map[1].key_id), place(map[1].value.id)),
        ((4, 12), (4, 15))
    );
    assert_eq!(document.place(Node::NULL.id), None);
}

#[test]
fn merge_keys_fill_in_what_is_absent_and_the_earlier_one_goes_first() {
    let node = root("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\n");
    let numbers = ["a", "b", "c"].map(|key| node.get("z").unwrap().get(key).unwrap().integer());
    assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
}

#[test]
fn bombs_and_deep_nests_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, inner) in ["b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .zip("abcdefg".chars())
    {
        let list = vec![format!("*{inner}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    assert!(
        error(&bomb).contains("repetition limit exceeded"),
        "{}",
        error(&bomb)
    );
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(
        error(&deep).contains("recursion limit exceeded"),
        "{}",
        error(&deep)
    );
}

#[test]
fn the_nearest_word_is_within_two_edits_and_less_than_half_of_its_letters() {
    let words = [
        "keep_alive",
        "acl",
        "bind",
        "max-connections",
        "max-packet-size",
    ];
    for (written, expected) in [
        ("keepalive", Some("keep_alive")),
        ("KEEP-ALIVE", Some("keep_alive")),
        ("keep_alvie", Some("keep_alive")),
        ("max-conections", Some("max-connections")),
        ("max_connection", Some("max-connections")),
        ("max-conexions", None),
        ("bnid", Some("bind")),
        ("find", Some("bind")),
        ("xyz", None),
        ("ac", Some("acl")),
        ("", None),
    ] {
        assert_eq!(nearest(written, &words), expected, "{written}");
    }
    assert_eq!(nearest(&"x".repeat(100_000), &words), None);
}

#[test]
fn an_error_fits_into_a_result_and_shows_what_is_known() {
    assert!(size_of::<ConfigError>() <= 32);
    let mut problem = Problem::new("a.b", "is wrong");
    assert_eq!(problem.to_string(), "a.b: is wrong");
    problem = problem.at(Some((3, 4)));
    assert_eq!(problem.to_string(), "line 3, column 4: a.b: is wrong");
    let error = ConfigError::from(problem).in_file("x.yaml".as_ref());
    assert_eq!(error.to_string(), "x.yaml:3:4: a.b: is wrong");
    assert_eq!(error.problems().len(), 1);
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "[a-z:\\-\\[\\]{},'\"&*!|>#%?~ \n\t0-9.]{0,60}") {
        if let Ok(document) = Document::parse(text) {
            let _ = document.place(document.root().id);
        }
    }

    #[test]
    fn a_swap_or_a_slip_is_one_edit(word in "[a-z]{5,12}", at in 0usize..4, letter in "[a-z]") {
        let mut swapped: Vec<char> = word.chars().collect();
        swapped.swap(at, at + 1);
        let swapped: String = swapped.into_iter().collect();
        let slip = format!("{}{letter}{}", &word[..at], &word[at + 1..]);
        let more = format!("{}{letter}{}", &word[..at], &word[at..]);
        for written in [swapped, slip, more] {
            prop_assert_eq!(nearest(&written, &[word.as_str()]), Some(word.as_str()));
        }
    }
}
