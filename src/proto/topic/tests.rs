use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

#[test]
fn topic_names_are_checked() {
    for good in [
        "a", "/", "a/b", "/a", "a/", "a//b", "$SYS/x", " ", "Ä/ö", "\u{1}",
    ] {
        assert!(TopicName::parse(good).is_ok(), "{good:?}");
    }
    let longest = "x".repeat(MAX_TOPIC_BYTES);
    assert!(TopicName::parse(longest.as_str()).is_ok());
    let too_long = "x".repeat(MAX_TOPIC_BYTES + 1);
    for (bad, error) in [
        ("", TopicError::Empty), // [MQTT-4.7.3-1]
        (too_long.as_str(), TopicError::TooLong),
        ("a\0", TopicError::Nul),
        ("\0+", TopicError::Nul),
        ("a/+", TopicError::Wildcard),
        ("#", TopicError::Wildcard),
        ("a+b", TopicError::Wildcard),
    ] {
        assert_eq!(TopicName::parse(bad), Err(error), "{bad:?}");
    }
}

#[test]
fn topic_filters_are_checked() {
    for good in [
        "a",
        "#",
        "+",
        "+/+",
        "a/#",
        "/#",
        "+/a/#",
        "a//+",
        "$SYS/#",
        "/",
        "$share/a/b",
    ] {
        assert!(TopicFilter::parse(good).is_ok(), "{good:?}");
    }
    for bad in [
        "a#", "#a", "a/#/b", "#/", "##", "a+", "+a", "a/b+/c", "+#", "a/+#",
    ] {
        assert_eq!(
            TopicFilter::parse(bad),
            Err(TopicError::MisplacedWildcard),
            "{bad:?}"
        );
    }
    assert_eq!(TopicFilter::parse(""), Err(TopicError::Empty));
    assert_eq!(TopicFilter::parse("a\0"), Err(TopicError::Nul));
    let too_long = "+/".repeat(40_000);
    assert_eq!(TopicFilter::parse(too_long), Err(TopicError::TooLong));
}

#[test]
fn shared_subscriptions_are_split() {
    let parse = |text: &'static str| parse_subscription(&ByteString::from_static(text));
    let (share, filter) = parse("$share/group/a/+/#").unwrap();
    assert_eq!(share.unwrap(), "group");
    assert_eq!(filter, "a/+/#");
    let (share, filter) = parse("$share/g//").unwrap();
    assert_eq!((share.unwrap().as_str(), filter.as_str()), ("g", "/"));
    for plain in ["$share", "a/b", "$SYS/#", "$shared/x/y", "share/x/y"] {
        let (share, filter) = parse(plain).unwrap();
        assert_eq!((share, filter.as_str()), (None, plain));
    }
    for bad in [
        "$share/",
        "$share/g",
        "$share//a",
        "$share/g/",
        "$share/+/a",
        "$share/g#/a",
    ] {
        assert_eq!(parse(bad), Err(TopicError::InvalidShare), "{bad:?}");
    }
    assert_eq!(parse("$share/g/a/#/b"), Err(TopicError::MisplacedWildcard));
    assert_eq!(parse("$share/g/a\0"), Err(TopicError::Nul));
}

#[test]
fn a_subscription_does_not_keep_the_packet_alive() {
    let packet = ByteString::from("a/b/c and much more".to_owned());
    let (_, filter) = parse_subscription(&packet.slice_ref(&packet[..5])).unwrap();
    assert!(packet.into_bytes().is_unique());
    assert_eq!(filter, "a/b/c");
}

#[test]
fn filters_match_as_the_specification_says() {
    // Examples of MQTT 5.0 §4.7.1 to §4.7.3 and the corners next to them.
    for (pattern, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/ranking",
            true,
        ),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("sport/#", "sports", false),
        ("#", "a/b", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "sport/tennis", true),
        ("#", "$SYS/x", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("+", "$x", false),
        ("$SYS/#", "$SYS", true),
        ("$SYS/#", "$SYS/a", true),
        ("$SYS/+/c", "$SYS/a/c", true),
        ("$SYS/#", "SYS/a", false),
        ("a", "A", false),
        ("/", "/", true),
        ("a", "/a", false),
        ("a/", "a", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("a/#", "a//", true),
        ("/#", "/", true),
        ("/#", "a", false),
        ("+/#", "a", true),
        ("a/+/#", "a", false),
        ("a/+/#", "a/b", true),
        ("a/$b/+", "a/$b/c", true),
        ("a/#", "a/$b", true),
    ] {
        assert_eq!(
            filter(pattern).matches(topic),
            expected,
            "{pattern} {topic}"
        );
    }
}

#[test]
fn filters_cover_what_they_match_and_more() {
    for (wide, narrow, expected) in [
        ("#", "a", true),
        ("#", "+/b/#", true),
        ("#", "$SYS/a", false),
        ("+/a", "$SYS/a", false),
        ("$SYS/#", "$SYS/a/+", true),
        ("$SYS/#", "$SYS/#", true),
        ("a/+", "a/b", true),
        ("a/+", "a/+", true),
        ("a/+", "#", false),
        ("a/+", "a/#", false),
        ("a/b", "a/+", false),
        ("a/#", "a", true),
        ("a/#", "a/#", true),
        ("a/+/#", "a/#", false),
        ("+/#", "#", true),
        ("#", "+/#", true),
        ("+/+/#", "#", false),
        ("+/+/#", "/#", true),
        ("/+/#", "/#", true),
        ("+/#", "a/#", true),
        ("+/+", "+", false),
        ("a", "a/b", false),
        ("a/b", "a", false),
    ] {
        assert_eq!(
            filter(wide).covers(&filter(narrow)),
            expected,
            "{wide} {narrow}"
        );
    }
}

#[test]
fn levels_are_counted() {
    for (text, count) in [("a", 1), ("/", 2), ("a/b/#", 3), ("", 1)] {
        assert_eq!(level_count(text), count);
        assert_eq!(levels(text).count(), count);
    }
}

/// §4.7.1 word for word: one level, then the rest.
fn naive_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        (["+", filter @ ..], [_, topic @ ..]) => naive_match(filter, topic),
        ([level, filter @ ..], [name, topic @ ..]) => level == name && naive_match(filter, topic),
        (filter, topic) => filter.is_empty() && topic.is_empty(),
    }
}

fn all_texts(levels: &[&str], deepest: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut deeper: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
    for _ in 0..deepest {
        let next = deeper.iter().flat_map(|text| {
            let longer = levels.iter().map(move |level| format!("{text}/{level}"));
            longer.collect::<Vec<_>>()
        });
        let next = next.collect();
        all.append(&mut std::mem::replace(&mut deeper, next));
    }
    all.retain(|text| !text.is_empty());
    all
}

/// Every filter of up to three levels against every topic of up to four.
#[test]
fn matching_and_covering_agree_with_the_definition() {
    // "z" stands for any level that no filter names.
    let topics = all_texts(&["", "a", "$a", "z"], 4);
    let filters: Vec<TopicFilter> = all_texts(&["", "a", "$a", "+", "#"], 3)
        .into_iter()
        .filter_map(|text| TopicFilter::parse(text).ok())
        .collect();
    let matched_by = |filter: &TopicFilter| {
        let levels: Vec<_> = filter.levels().collect();
        let matches = |topic: &String| {
            let names: Vec<_> = topic.split('/').collect();
            let hidden = topic.starts_with('$') && filter.as_str().starts_with(['+', '#']);
            let matches = naive_match(&levels, &names) && !hidden;
            assert_eq!(filter.matches(topic), matches, "{filter} {topic}");
            matches
        };
        topics.iter().map(matches).collect::<Vec<bool>>()
    };
    let matched: Vec<_> = filters.iter().map(matched_by).collect();
    for (wide, wide_topics) in filters.iter().zip(&matched) {
        for (narrow, narrow_topics) in filters.iter().zip(&matched) {
            let includes = narrow_topics
                .iter()
                .zip(wide_topics)
                .all(|(narrow, wide)| wide >= narrow);
            assert_eq!(wide.covers(narrow), includes, "{wide} {narrow}");
        }
    }
}
