//! Compares what was promised with what came.

use std::collections::BTreeMap;

use crate::model::{Delivery, Epoch, Interval, NEVER, Stream, unshared};
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// QoS 1, which may.
    pub(crate) repeated: u64,
    /// Everything else that must not be.
    pub(crate) others: u64,
    /// What happened in the round.
    pub(crate) what: String,
    /// Each violation as a sentence; after some, only the counts go on.
    pub(crate) texts: Vec<String>,
}

impl Findings {
    pub(crate) fn violations(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.others
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.repeated += other.repeated;
        self.others += other.others;
    }

    fn say(&mut self, text: String) {
        if self.texts.len() < MOST_TEXTS {
            self.texts.push(text);
        }
    }

    pub(crate) fn lost(&mut self, text: String) {
        self.lost += 1;
        self.say(format!("lost: {text}"));
    }

    pub(crate) fn other(&mut self, text: String) {
        self.others += 1;
        self.say(text);
    }
}

const MOST_TEXTS: usize = 25;

/// What is compared.
pub(crate) struct Case<'a> {
    pub(crate) publishers: &'a [Publisher],
    pub(crate) subscribers: &'a [Subscriber],
    pub(crate) extra: &'a [Stream],
}

impl<'a> Case<'a> {
    fn streams(&self) -> Vec<&'a Stream> {
        let of_publishers = self.publishers.iter().flat_map(|one| &one.streams);
        of_publishers.chain(self.extra).collect()
    }

    /// Messages that have not come yet to a session that must have them.
    pub(crate) fn missing(&self) -> Vec<String> {
        let streams = self.streams();
        let mut missing = Vec::new();
        for subscriber in self.subscribers.iter().filter(|one| one.group.is_none()) {
            for (number, stream) in streams.iter().enumerate() {
                missing_of_session(subscriber, number, stream, &mut missing);
            }
        }
        for group in ["one", "two"] {
            self.missing_of_group(group, &streams, &mut missing);
        }
        missing
    }

    /// Retained messages that subscriptions have to bring, and that have not come yet.
    pub(crate) fn missing_replays(&self) -> Vec<String> {
        let streams = self.streams();
        let mut missing = Vec::new();
        for subscriber in self.subscribers {
            missing_replays(subscriber, &streams, &mut missing);
        }
        missing
    }

    fn missing_of_group(&self, group: &str, streams: &[&Stream], missing: &mut Vec<String>) {
        let members: Vec<_> = self.members(group).collect();
        for (number, stream) in streams.iter().enumerate() {
            let is_shared = |filter: &&String| filter.starts_with("$share/");
            let intervals: Vec<_> = members
                .iter()
                .flat_map(|member| member.past.iter().chain([&member.epoch]))
                .flat_map(|epoch| {
                    epoch
                        .filters
                        .keys()
                        .filter(is_shared)
                        .map(move |filter| (epoch, filter))
                })
                .filter(|(_, filter)| crate::model::matches(unshared(filter), &stream.topic))
                .flat_map(|(epoch, filter)| &epoch.filters[filter])
                .collect();
            for (at, sent) in stream.sent.iter().enumerate().skip(stream.checked) {
                let is_due = !sent.clears && intervals.iter().any(|interval| interval.covers(sent));
                if is_due && self.given(&members, number, at) == 0 {
                    missing.push(format!("group {group}: {} {at}", stream.topic));
                }
            }
        }
    }

    fn members(&self, group: &str) -> impl Iterator<Item = &'a Subscriber> {
        let members = self.subscribers.iter();
        members.filter(move |one| one.group == Some(group))
    }

    /// How often the members of a group were given a message.
    fn given(&self, members: &[&Subscriber], stream: usize, number: usize) -> u64 {
        let counts = members.iter().flat_map(|member| {
            let counts = [&member.given, &member.epoch.counts];
            counts.map(|counts| count(counts, stream, number))
        });
        counts.sum()
    }

    /// Everything that came although it must not have, and the counts.
    pub(crate) fn judge(&self, findings: &mut Findings) {
        let streams = self.streams();
        for stream in &streams {
            let sent = stream.sent.iter().skip(stream.checked);
            findings.acknowledged += sent.filter(|sent| sent.acknowledged != NEVER).count() as u64;
        }
        for subscriber in self.subscribers {
            for epoch in subscriber.past.iter().chain([&subscriber.epoch]) {
                for delivery in &epoch.log {
                    judge_delivery(subscriber, epoch, delivery, &streams, findings);
                }
            }
        }
        // QoS 2 is given to one member of the group, once. The other group subscribes with QoS 1.
        let members: Vec<_> = self.members("one").collect();
        for (number, stream) in streams.iter().enumerate().filter(|(_, one)| one.qos == 2) {
            if !stream.topic.starts_with("c/") {
                continue;
            }
            for at in stream.checked..stream.sent.len() {
                let given = self.given(&members, number, at);
                if given > 1 {
                    findings.duplicated += given - 1;
                    findings.say(format!(
                        "group one: {} {at} came {given} times",
                        stream.topic
                    ));
                }
            }
        }
        let complaints = self.publishers.iter().map(|one| &one.complaints);
        let complaints = complaints.chain(self.subscribers.iter().map(|one| &one.complaints));
        for complaint in complaints.flatten() {
            findings.other(complaint.clone());
        }
        for text in self.missing() {
            findings.lost(text);
        }
    }
}

fn missing_of_session(
    subscriber: &Subscriber,
    number: usize,
    stream: &Stream,
    missing: &mut Vec<String>,
) {
    let gone = subscriber.past.iter().filter(|epoch| epoch.is_gone);
    for epoch in gone.chain([&subscriber.epoch]) {
        let intervals: Vec<&Interval> = epoch.matching(&stream.topic).collect();
        if intervals.is_empty() {
            continue;
        }
        for (at, sent) in stream.sent.iter().enumerate().skip(stream.checked) {
            let is_due = !sent.clears && intervals.iter().any(|interval| interval.covers(sent));
            if is_due && count(&epoch.counts, number, at) == 0 {
                missing.push(format!("{}: {} {at}", subscriber.name, stream.topic));
            }
        }
    }
}

fn count(counts: &BTreeMap<usize, Vec<u8>>, stream: usize, number: usize) -> u64 {
    let count = counts.get(&stream).and_then(|counts| counts.get(number));
    count.copied().unwrap_or_default().into()
}

fn judge_delivery(
    subscriber: &Subscriber,
    epoch: &Epoch,
    delivery: &Delivery,
    streams: &[&Stream],
    findings: &mut Findings,
) {
    let Delivery {
        stream,
        number,
        qos,
        dup,
        retain,
        behind,
        connection,
        is_repeated,
    } = *delivery;
    let (name, number) = (&subscriber.name, number as usize);
    let stream = streams[stream as usize];
    let topic = &stream.topic;
    let Some(sent) = stream.sent.get(number) else {
        findings.other(format!("{name}: {topic} {number} was never sent"));
        return;
    };
    if retain {
        // A delivery at QoS 1 waits for no disk: the newer one may have been lost with the broker, and then its publisher
        // has sent it again.
        let newer = behind.and_then(|later| stream.sent.get(later as usize));
        let was_lost = qos == 1 && newer.is_some_and(|newer| newer.is_resent);
        if behind.is_some() && !dup && stream.qos == 2 && !was_lost {
            findings.reordered += 1;
            findings.say(format!(
                "{name}: retained {topic} {number} after a newer one"
            ));
        }
        return;
    }
    if is_repeated {
        if stream.qos == 2 && qos == 2 {
            findings.duplicated += 1;
            findings.say(format!("{name}: {topic} {number} came again at QoS 2"));
        } else {
            findings.repeated += 1;
        }
        return;
    }
    findings.delivered += 1;
    // What a session leaves to the other members of a group comes to them later.
    let is_left = subscriber.group == Some("two");
    // A QoS 1 message that its publisher sends again is routed again: it may be new to a receiver that the first one was
    // not for.
    let is_rerouted = stream.qos == 1
        && sent.is_resent
        && (subscriber.group.is_some() || !epoch.matching(topic).any(|one| one.covers(sent)));
    if let Some(later) = behind
        && !is_left
        && !is_rerouted
    {
        let with = if dup { " with DUP" } else { "" };
        findings.reordered += 1;
        findings.say(format!(
            "{name}: {topic} {number}{with} after {later}, by connection {connection}"
        ));
    }
    let is_asked_for = || epoch.matching(topic).any(|interval| interval.touches(sent));
    if subscriber.group.is_none() && !is_asked_for() {
        findings.other(format!(
            "{name}: {topic} {number} came without a subscription"
        ));
    }
}

/// Retained messages that there were when a subscription began, that still hold, and that did not come, nor newer ones.
fn missing_replays(subscriber: &Subscriber, streams: &[&Stream], missing: &mut Vec<String>) {
    for (number, stream) in streams.iter().enumerate().filter(|(_, one)| one.retain) {
        let intervals = subscriber.epoch.matching(&stream.topic);
        for interval in intervals.filter(|one| one.unsubscribe_sent == NEVER) {
            let Some(then) = stream.last_acknowledged(interval.subscribe_sent) else {
                continue;
            };
            let is_cleared = stream.sent[then..].iter().any(|sent| sent.clears);
            let highest = subscriber.epoch.highest.get(&number);
            let has_come = highest.is_some_and(|highest| *highest as usize >= then)
                && subscriber.epoch.came.get(&number) > Some(&interval.subscribe_sent);
            if !is_cleared && !has_come {
                missing.push(format!(
                    "{}: retained {} {then} or later",
                    subscriber.name, stream.topic
                ));
            }
        }
    }
}
