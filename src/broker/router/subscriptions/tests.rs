use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::proto::packet::RetainHandling;

const QOS0: QoS = QoS::AtMostOnce;
const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn share(text: &str) -> ShareName {
    ShareName::parse(text).unwrap()
}

fn wants(qos: QoS) -> Subscription {
    Subscription {
        options: SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        },
        id: None,
    }
}

fn with_id(qos: QoS, id: u32) -> Subscription {
    Subscription {
        id: Some(id),
        ..wants(qos)
    }
}

fn no_local(subscription: Subscription) -> Subscription {
    Subscription {
        options: SubscriptionOptions {
            no_local: true,
            ..subscription.options
        },
        ..subscription
    }
}

fn slots(subscriptions: &mut Subscriptions, topic: &str) -> Vec<SessionSlot> {
    let direct = &subscriptions.receivers(topic).direct;
    direct.iter().map(|receiver| receiver.slot).collect()
}

/// [MQTT-3.8.4-3]
#[test]
fn a_second_subscription_with_the_same_filter_replaces_the_first() {
    let mut subscriptions = Subscriptions::new();
    assert!(!subscriptions.subscribe(1, &filter("a"), None, wants(QOS0)));
    assert_eq!(subscriptions.receivers("a").direct[0].qos, QOS0);
    assert!(subscriptions.subscribe(1, &filter("a"), None, wants(QOS2)));
    let receivers = subscriptions.receivers("a");
    assert_eq!((receivers.direct.len(), receivers.direct[0].qos), (1, QOS2));
    assert_eq!(subscriptions.len(), 1);
    assert!(!subscriptions.unsubscribe(2, &filter("a"), None));
    assert!(!subscriptions.unsubscribe(1, &filter("b"), None));
    assert!(!subscriptions.unsubscribe(1, &filter("a"), Some(&share("g"))));
    assert!(subscriptions.unsubscribe(1, &filter("a"), None));
    assert!(subscriptions.receivers("a").is_empty());
    assert_eq!(subscriptions.len(), 0);
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_are_merged_at_the_highest_qos_with_all_identifiers() {
    let mut subscriptions = Subscriptions::new();
    let mut retained_kept = with_id(QOS0, 7);
    retained_kept.options.retain_as_published = true;
    subscriptions.subscribe(1, &filter("a/b"), None, retained_kept);
    subscriptions.subscribe(1, &filter("a/+"), None, with_id(QOS2, 8));
    subscriptions.subscribe(1, &filter("#"), None, wants(QOS1));
    subscriptions.subscribe(1, &filter("a/#"), None, with_id(QOS1, 7));
    subscriptions.subscribe(2, &filter("#"), None, wants(QOS1));
    let receivers = subscriptions.receivers("a/b");
    let [one, two] = receivers.direct.as_slice() else {
        panic!("{receivers:?}")
    };
    assert_eq!(
        (one.slot, one.qos, one.retain_as_published),
        (1, QOS2, true)
    );
    let mut ids = one.ids.as_deref().unwrap().to_vec();
    ids.sort_unstable();
    assert_eq!(ids, [7, 7, 8]);
    assert_eq!(
        (two.slot, two.qos, two.retain_as_published),
        (2, QOS1, false)
    );
    assert_eq!(two.ids, None);
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_subscriptions_leave_the_other_ones_to_the_publisher() {
    let mut subscriptions = Subscriptions::new();
    subscriptions.subscribe(1, &filter("a"), None, no_local(with_id(QOS2, 1)));
    let receiver = &subscriptions.receivers("a").direct[0];
    assert!(receiver.no_local && receiver.without_local.is_none());
    assert_eq!(receiver.for_publisher(true), None);
    assert_eq!(receiver.for_publisher(false), Some(receiver));

    subscriptions.subscribe(1, &filter("+"), None, with_id(QOS1, 2));
    let receiver = &subscriptions.receivers("a").direct[0];
    assert_eq!((receiver.no_local, receiver.qos), (false, QOS2));
    let own = receiver.for_publisher(true).unwrap();
    assert_eq!(
        (own.slot, own.qos, own.ids.as_deref()),
        (1, QOS1, Some(&[2][..]))
    );

    subscriptions.subscribe(1, &filter("#"), None, no_local(wants(QOS0)));
    subscriptions.subscribe(1, &filter("+"), None, no_local(wants(QOS1)));
    let receiver = &subscriptions.receivers("a").direct[0];
    assert!(receiver.no_local && receiver.without_local.is_none());
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_in_front_do_not_match_reserved_topics() {
    let mut subscriptions = Subscriptions::new();
    for (slot, text) in (0..).zip(["#", "+/#", "+/a", "$SYS/#", "$SYS/+", "$SYS/a", "+/+/#"]) {
        subscriptions.subscribe(slot, &filter(text), None, wants(QOS0));
    }
    assert_eq!(slots(&mut subscriptions, "$SYS/a"), [3, 4, 5]);
    assert_eq!(slots(&mut subscriptions, "$SYS"), [3]);
    assert_eq!(slots(&mut subscriptions, "SYS/a"), [0, 1, 2, 6]);
}

#[test]
fn a_changed_subscription_reaches_the_topics_already_asked_for() {
    let mut subscriptions = Subscriptions::new();
    assert!(subscriptions.receivers("a/b").is_empty());
    subscriptions.subscribe(1, &filter("a/b"), None, wants(QOS0));
    assert_eq!(slots(&mut subscriptions, "a/b"), [1]);
    subscriptions.subscribe(2, &filter("a/+"), None, wants(QOS0));
    assert_eq!(slots(&mut subscriptions, "a/b"), [1, 2]);
    subscriptions.unsubscribe(1, &filter("a/b"), None);
    assert_eq!(slots(&mut subscriptions, "a/b"), [2]);
    subscriptions.unsubscribe(2, &filter("a/+"), None);
    assert!(subscriptions.receivers("a/b").is_empty());
    subscriptions.subscribe(3, &filter("a/b"), Some(&share("g")), wants(QOS0));
    assert_eq!(subscriptions.receivers("a/b").groups.len(), 1);
    subscriptions.unsubscribe(3, &filter("a/b"), Some(&share("g")));
    assert!(subscriptions.receivers("a/b").is_empty());
}

#[test]
fn long_topics_are_matched_without_the_cache() {
    let mut subscriptions = Subscriptions::new();
    let topic = "x/".repeat(MAX_CACHED_TOPIC_BYTES);
    assert!(subscriptions.receivers(&topic).is_empty());
    subscriptions.subscribe(1, &filter("x/#"), None, wants(QOS0));
    subscriptions.subscribe(2, &filter(&topic), None, wants(QOS0));
    assert_eq!(slots(&mut subscriptions, &topic), [1, 2]);
    assert_eq!(slots(&mut subscriptions, "x"), [1]);
    subscriptions.unsubscribe(2, &filter(&topic), None);
    assert_eq!(slots(&mut subscriptions, &topic), [1]);
}

#[test]
fn a_group_keeps_its_members_and_whose_turn_it_is() {
    let mut subscriptions = Subscriptions::new();
    for slot in 1..=3 {
        let member = with_id(QOS1, slot);
        assert!(!subscriptions.subscribe(slot, &filter("a/#"), Some(&share("g")), member));
    }
    assert!(subscriptions.subscribe(2, &filter("a/#"), Some(&share("g")), wants(QOS2)));
    subscriptions.subscribe(9, &filter("a/#"), Some(&share("h")), wants(QOS0));
    subscriptions.subscribe(9, &filter("a/b"), Some(&share("g")), wants(QOS0));
    subscriptions.subscribe(1, &filter("a/#"), None, wants(QOS0));
    assert_eq!(subscriptions.len(), 6);

    let receivers = subscriptions.receivers("a/b");
    assert_eq!((receivers.direct.len(), receivers.groups.len()), (1, 3));
    let groups = subscriptions.receivers("a/c").groups.clone();
    assert_eq!(groups.len(), 2);
    let name = |id: &GroupId| subscriptions.group(*id).unwrap().name == "g";
    let id = *groups.iter().find(|id| name(id)).unwrap();
    let group = subscriptions.group_mut(id).unwrap();
    let members: Vec<_> = group.members.iter().map(|member| member.slot).collect();
    assert_eq!(members, [1, 2, 3]);
    group.next = 1;

    // Whoever leaves does not change whose turn it is.
    let next = |subscriptions: &Subscriptions| {
        let group = subscriptions.group(id).unwrap();
        group.members[group.next].slot
    };
    assert!(subscriptions.unsubscribe(1, &filter("a/#"), Some(&share("g"))));
    assert!(!subscriptions.unsubscribe(1, &filter("a/#"), Some(&share("g"))));
    assert_eq!(next(&subscriptions), 2);
    assert!(subscriptions.unsubscribe(2, &filter("a/#"), Some(&share("g"))));
    assert_eq!(next(&subscriptions), 3);
    subscriptions.group_mut(id).unwrap().next = 0;
    assert!(subscriptions.unsubscribe(3, &filter("a/#"), Some(&share("g"))));
    assert!(subscriptions.group(id).is_none());
    assert_eq!(subscriptions.receivers("a/c").groups.len(), 1);
    // The place is used again, the name of the group is not.
    subscriptions.subscribe(5, &filter("x"), Some(&share("g")), wants(QOS0));
    assert!(subscriptions.group_mut(id).is_none());
}

#[test]
fn subscriptions_are_listed() {
    let mut subscriptions = Subscriptions::new();
    subscriptions.subscribe(1, &filter("a"), None, with_id(QOS1, 5));
    subscriptions.subscribe(2, &filter("a"), Some(&share("g")), wants(QOS2));
    subscriptions.subscribe(1, &filter("+/b"), None, wants(QOS0));
    let mut listed: Vec<_> = subscriptions
        .iter()
        .map(|listed| {
            (
                listed.filter,
                listed.share,
                listed.slot,
                listed.subscription,
            )
        })
        .collect();
    listed.sort_by_key(|(filter, share, ..)| (*filter, *share));
    let expected = [
        ("+/b", None, 1, wants(QOS0)),
        ("a", None, 1, with_id(QOS1, 5)),
        ("a", Some("g"), 2, wants(QOS2)),
    ];
    assert_eq!(listed, expected);
}

#[test]
fn nothing_is_left_of_filters_that_are_gone() {
    let mut subscriptions = Subscriptions::new();
    let filters: Vec<_> = (0..500)
        .map(|n| match n % 5 {
            0 => format!("a/{n}/b"),
            1 => format!("a/+/{n}/#"),
            2 => format!("{}/+", n % 7),
            3 => format!("+/+/{}", n / 2),
            _ => format!("x//{}/#", n % 11),
        })
        .collect();
    for text in &filters {
        subscriptions.subscribe(1, &filter(text), None, wants(QOS0));
        subscriptions.subscribe(2, &filter(text), Some(&share("g")), wants(QOS0));
    }
    for text in filters.iter().rev() {
        subscriptions.unsubscribe(1, &filter(text), None);
        subscriptions.unsubscribe(2, &filter(text), Some(&share("g")));
    }
    assert_eq!(subscriptions.len(), 0);
    assert_eq!(subscriptions.tree.size(), (1, 0, 0));
    assert!(subscriptions.filters.is_empty() && subscriptions.by_text.is_empty());
    assert!(subscriptions.groups.is_empty() && subscriptions.group_by_text.is_empty());
}

#[test]
fn fifty_thousand_filters_find_only_their_own_receivers() {
    let mut subscriptions = Subscriptions::new();
    for n in 0..50_000u32 {
        let text = match n % 3 {
            0 => format!("site/{}/device/{n}/state", n % 100),
            1 => format!("site/{}/+/{n}/state", n % 100),
            _ => format!("site/{}/device/{n}/#", n % 100),
        };
        subscriptions.subscribe(n % 100, &filter(&text), None, wants(QOS1));
    }
    assert_eq!(subscriptions.len(), 50_000);
    for n in (0..50_000).step_by(997) {
        let topic = format!("site/{}/device/{n}/state", n % 100);
        assert_eq!(slots(&mut subscriptions, &topic), [n % 100]);
    }
}

/// A receiver: session, QoS, Retain As Published, No Local, identifiers in order, QoS if it is the publisher.
type Plain = (SessionSlot, QoS, bool, bool, Vec<u32>, Option<QoS>);

/// A reference: every filter is matched on its own.
#[derive(Default)]
struct Naive(BTreeMap<(SessionSlot, Option<String>, String), Subscription>);

impl Naive {
    fn direct(&self, topic: &str) -> Vec<Plain> {
        let mut sessions: BTreeMap<SessionSlot, Vec<Subscription>> = BTreeMap::new();
        for ((slot, share, text), subscription) in &self.0 {
            if share.is_none() && filter(text).matches(topic) {
                sessions.entry(*slot).or_default().push(*subscription);
            }
        }
        let receiver = |(slot, all): (SessionSlot, Vec<Subscription>)| {
            let mut ids: Vec<u32> = all.iter().filter_map(|one| one.id).collect();
            ids.sort_unstable();
            let local = all.iter().filter(|one| !one.options.no_local);
            let qos = all.iter().map(|one| one.options.qos).max().unwrap();
            let keeps = all.iter().any(|one| one.options.retain_as_published);
            let no_local = all.iter().all(|one| one.options.no_local);
            let own_qos = local.map(|one| one.options.qos).max();
            (slot, qos, keeps, no_local, ids, own_qos)
        };
        sessions.into_iter().map(receiver).collect()
    }

    fn groups(&self, topic: &str) -> Vec<(String, Vec<SessionSlot>)> {
        let mut groups: BTreeMap<(String, String), Vec<SessionSlot>> = BTreeMap::new();
        for (slot, share, text) in self.0.keys() {
            if let Some(share) = share
                && filter(text).matches(topic)
            {
                let group = groups.entry((share.clone(), text.clone())).or_default();
                group.push(*slot);
            }
        }
        let flat = |((share, _), slots)| (share, slots);
        let mut groups: Vec<_> = groups.into_iter().map(flat).collect();
        groups.sort();
        groups
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "c", "$a", "$"])
}

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop_oneof![2 => level(), 1 => Just("+")], 1..5);
    (levels, prop::bool::weighted(0.3))
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

#[derive(Debug, Clone)]
enum Change {
    Subscribe(SessionSlot, Option<&'static str>, String, Subscription),
    Unsubscribe(usize),
    Ask(String),
}

fn change() -> impl Strategy<Value = Change> {
    let options = (0u8..3, any::<bool>(), any::<bool>()).prop_map(|(qos, no_local, keep)| {
        SubscriptionOptions {
            qos: QoS::from_u8(qos).unwrap(),
            no_local,
            retain_as_published: keep,
            retain_handling: RetainHandling::Always,
        }
    });
    let subscription =
        (options, prop::option::of(1u32..4)).prop_map(|(options, id)| Subscription { options, id });
    let share = prop::option::weighted(0.2, prop::sample::select(vec!["g", "h"]));
    prop_oneof![
        4 => (0u32..4, share, filter_text(), subscription)
            .prop_map(|(slot, share, text, wanted)| Change::Subscribe(slot, share, text, wanted)),
        2 => any::<usize>().prop_map(Change::Unsubscribe),
        4 => topic_text().prop_map(Change::Ask),
    ]
}

fn check(subscriptions: &mut Subscriptions, naive: &Naive, topic: &str) {
    let receivers = subscriptions.receivers(topic);
    let direct: Vec<_> = receivers
        .direct
        .iter()
        .map(|receiver| {
            let mut ids = receiver.ids.as_deref().unwrap_or_default().to_vec();
            ids.sort_unstable();
            let own_qos = receiver.for_publisher(true).map(|own| own.qos);
            let Receiver {
                slot,
                qos,
                retain_as_published,
                no_local,
                ..
            } = *receiver;
            (slot, qos, retain_as_published, no_local, ids, own_qos)
        })
        .collect();
    assert_eq!(direct, naive.direct(topic), "{topic}");
    let ids = receivers.groups.clone();
    let mut groups: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let group = subscriptions.group(id).unwrap();
            let mut members: Vec<_> = group.members.iter().map(|member| member.slot).collect();
            members.sort_unstable();
            (group.name.to_string(), members)
        })
        .collect();
    groups.sort();
    assert_eq!(groups, naive.groups(topic), "{topic}");
}

proptest! {
    #[test]
    fn receivers_are_those_of_all_matching_filters(changes in prop::collection::vec(change(), 1..60)) {
        let mut subscriptions = Subscriptions::new();
        let mut naive = Naive::default();
        let mut asked: Vec<String> = Vec::new();
        for change in changes {
            match change {
                Change::Subscribe(slot, name, text, wanted) => {
                    let name = name.map(str::to_owned);
                    let parsed = name.as_deref().map(share);
                    let existed = subscriptions.subscribe(slot, &filter(&text), parsed.as_ref(), wanted);
                    prop_assert_eq!(existed, naive.0.insert((slot, name, text), wanted).is_some());
                }
                Change::Unsubscribe(index) if !naive.0.is_empty() => {
                    let key = naive.0.keys().nth(index % naive.0.len()).unwrap().clone();
                    naive.0.remove(&key);
                    let (slot, name, text) = key;
                    let parsed = name.as_deref().map(share);
                    prop_assert!(subscriptions.unsubscribe(slot, &filter(&text), parsed.as_ref()));
                    prop_assert!(!subscriptions.unsubscribe(slot, &filter(&text), parsed.as_ref()));
                }
                Change::Unsubscribe(_) => {}
                Change::Ask(topic) => asked.push(topic),
            }
            for topic in &asked {
                check(&mut subscriptions, &naive, topic);
            }
            prop_assert_eq!(subscriptions.len(), naive.0.len());
            prop_assert_eq!(subscriptions.iter().count(), naive.0.len());
        }
        for (slot, name, text) in naive.0.into_keys() {
            let parsed = name.as_deref().map(share);
            prop_assert!(subscriptions.unsubscribe(slot, &filter(&text), parsed.as_ref()));
        }
        prop_assert_eq!(subscriptions.tree.size(), (1, 0, 0));
        prop_assert!(subscriptions.filters.is_empty() && subscriptions.groups.is_empty());
    }
}
