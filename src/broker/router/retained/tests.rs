use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn message(topic: &str, payload: &str) -> Arc<Message> {
    let topic = TopicName::parse(topic).unwrap();
    Arc::new(Message::new(topic, payload.to_owned()))
}

fn new_message(topic: &str) -> Arc<Message> {
    message(topic, "new")
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn unlimited() -> Retained {
    Retained::new(usize::MAX, usize::MAX)
}

fn topics(retained: &Retained, text: &str) -> Vec<String> {
    let filter = filter(text);
    let found = retained.matching(&filter, None);
    found.map(|message| message.topic.to_string()).collect()
}

/// [MQTT-3.3.1-5], [MQTT-3.3.1-6]
#[test]
fn the_last_message_of_a_topic_is_kept_until_it_is_cleared() {
    let mut retained = unlimited();
    assert_eq!(retained.set(message("a/b", "1"), None), Ok(false));
    assert_eq!(retained.set(message("a/b", "22"), None), Ok(true));
    assert_eq!(retained.get("a/b").unwrap().payload, "22");
    assert_eq!(retained.len(), 1);
    assert_eq!(retained.bytes(), message("a/b", "22").size_bytes());
    assert!(retained.clear("a/b"));
    assert!(!retained.clear("a/b"));
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
    assert!(retained.get("a/b").is_none());
    assert_eq!(retained.iter().count(), 0);
}

#[test]
fn limits_refuse_new_messages_and_let_smaller_ones_replace() {
    let size = message("a", "1").size_bytes();
    let mut retained = Retained::new(2, 2 * size + 1);
    assert_eq!(retained.set(message("a", "1"), None), Ok(false));
    assert_eq!(retained.set(message("b", "1"), None), Ok(false));
    assert_eq!(
        retained.set(message("c", ""), None),
        Err(RetainedFull::Bytes(2 * size + 1))
    );
    assert_eq!(retained.set(message("b", "12"), None), Ok(true));
    let full = retained.set(message("a", "123"), None);
    assert_eq!(full, Err(RetainedFull::Bytes(2 * size + 1)));
    assert_eq!(retained.get("a").unwrap().payload, "1");
    retained.set_limits(2, usize::MAX);
    assert_eq!(
        retained.set(message("c", ""), None),
        Err(RetainedFull::Messages(2))
    );
    assert_eq!(retained.set(message("a", "123"), None), Ok(true));
    retained.set_limits(0, 0);
    assert_eq!(retained.set(message("a", "12"), None), Ok(true));
    assert_eq!(retained.len(), 2);
}

#[test]
fn messages_come_level_by_level() {
    let mut retained = unlimited();
    for topic in [
        "b", "a!", "a/b", "a", "a/", "/a", "a/b/c", "a-b/c", "$SYS/x", "$a",
    ] {
        retained.set(message(topic, ""), None).unwrap();
    }
    let in_order = ["/a", "a", "a/", "a/b", "a/b/c", "a!", "a-b/c", "b"];
    assert_eq!(topics(&retained, "#"), in_order);
    assert_eq!(retained.iter().count(), 10);
    assert_eq!(topics(&retained, "a/#"), ["a", "a/", "a/b", "a/b/c"]);
    assert_eq!(topics(&retained, "+"), ["a", "a!", "b"]);
    assert_eq!(topics(&retained, "+/+"), ["/a", "a/", "a/b", "a-b/c"]);
    assert_eq!(topics(&retained, "+/b/#"), ["a/b", "a/b/c"]);
    assert_eq!(topics(&retained, "a/b"), ["a/b"]);
    assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
    assert_eq!(topics(&retained, "$SYS/+"), ["$SYS/x"]);
    assert!(topics(&retained, "x/#").is_empty());
}

#[test]
fn a_cursor_goes_on_where_its_topic_was() {
    let mut retained = unlimited();
    for topic in ["a/1", "a/2", "a/3", "a/4"] {
        retained.set(message(topic, ""), None).unwrap();
    }
    let filter = filter("a/+");
    let first = retained.next(&filter, None).unwrap();
    assert_eq!(first.topic, "a/1");
    retained.clear("a/1");
    retained.clear("a/2");
    retained.set(message("a/0", ""), None).unwrap();
    let second = retained.next(&filter, Some(&first.topic)).unwrap();
    assert_eq!(second.topic, "a/3");
    retained.set(message("a/3/x", ""), None).unwrap();
    let third = retained.next(&filter, Some(&second.topic)).unwrap();
    assert_eq!(third.topic, "a/4");
    assert_eq!(retained.next(&filter, Some(&third.topic)), None);
}

#[test]
fn an_exact_filter_is_found_once() {
    let mut retained = unlimited();
    retained.set(message("a", ""), None).unwrap();
    assert!(retained.next(&filter("a"), None).is_some());
    assert!(retained.next(&filter("a"), Some(&name("a"))).is_none());
    assert!(retained.next(&filter("b"), None).is_none());
}

#[test]
fn a_filter_visits_only_what_its_prefix_allows() {
    let mut retained = unlimited();
    for n in 0..20_000 {
        let topic = format!("site/{}/device/{n}/state", n % 10);
        retained.set(message(&topic, ""), None).unwrap();
    }
    for n in 0..2000 {
        let topic = format!("site/{}/device/{n}/state", n % 10);
        assert_eq!(
            topics(&retained, &format!("site/{}/+/{n}/#", n % 10)),
            [topic]
        );
        assert!(topics(&retained, &format!("other/{n}/#")).is_empty());
    }
    assert_eq!(topics(&retained, "site/3/#").len(), 2000);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "only a point of reference")]
fn expired_messages_are_swept_away_bit_by_bit() {
    let now = Instant::now();
    let mut retained = unlimited();
    for n in 0..100 {
        let mut message = Arc::unwrap_or_clone(message(&format!("{n}"), ""));
        message.expires_at = (n % 4 == 0).then(|| now + Duration::from_secs(5));
        retained.set(Arc::new(message), None).unwrap();
    }
    let mut sweep = |then, visits| {
        (0..visits)
            .map(|_| retained.sweep_expired(then, 10).len())
            .sum::<usize>()
    };
    assert_eq!(sweep(now, 50), 0);
    let later = now + Duration::from_secs(5);
    assert!(sweep(later, 1) <= 10);
    sweep(later, 50);
    assert_eq!(retained.len(), 75);
    assert!(unlimited().sweep_expired(now, 10).is_empty());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "ab", "a!", "\u{1}", "$", "$a", "é"])
}

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop_oneof![2 => level(), 1 => Just("+")], 1..5);
    (levels, prop::bool::weighted(0.4))
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

proptest! {
    #[test]
    fn every_matching_message_is_found_once(
        kept in prop::collection::vec(topic_text(), 0..60),
        filters in prop::collection::vec(filter_text(), 1..8),
    ) {
        let mut retained = unlimited();
        for topic in &kept {
            retained.set(message(topic, topic), None).unwrap();
        }
        for text in filters {
            let filter = filter(&text);
            let mut expected: Vec<_> = kept.iter().filter(|topic| filter.matches(topic)).collect();
            expected.sort_by_key(|topic| order_key(topic));
            expected.dedup();
            let found = topics(&retained, &text);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }

    /// The cursor gives, of what stays retained all the time, everything; of what comes and goes, nothing twice; and
    /// never what does not match.
    #[test]
    fn a_cursor_survives_changes(
        kept in prop::collection::vec(topic_text(), 1..30),
        text in filter_text(),
        changes in prop::collection::vec((any::<bool>(), topic_text()), 0..60),
        every in 1usize..4,
    ) {
        let filter = filter(&text);
        let mut retained = unlimited();
        for topic in &kept {
            retained.set(message(topic, ""), None).unwrap();
        }
        let mut stays = kept;
        let mut changes = changes.into_iter();
        let mut after: Option<TopicName> = None;
        let mut found: Vec<String> = Vec::new();
        while let Some(message) = retained.next(&filter, after.as_ref()) {
            let topic = message.topic.clone();
            prop_assert!(retained.get(topic.as_str()).is_some());
            prop_assert!(filter.matches(topic.as_str()));
            found.push(topic.to_string());
            after = Some(topic);
            for (set, topic) in changes.by_ref().take(every) {
                if set {
                    retained.set(new_message(&topic), None).unwrap();
                } else {
                    retained.clear(&topic);
                    // Found before it was cleared, or never to be found: either is right.
                    stays.retain(|other| *other != topic || found.contains(other));
                }
            }
        }
        let mut unique = found.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), found.len());
        for topic in stays {
            prop_assert_eq!(found.contains(&topic), filter.matches(&topic), "{}", topic);
        }
    }
}
