//! Shared subscriptions: which member of a group gets a message, and who gets what a member leaves behind.
//!
//! Source: MQTT 5.0 §4.8.2.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHasher;

use super::Router;
use super::command::{Goodbye, SessionExpiry};
use super::publication::Publication;
use super::session::{Delivery, Session};
use super::sessions::{Delivered, Member as Membership, Sessions, Waiter};
use super::subscriptions::{Group, GroupId, Receiver, SessionSlot, Subscriptions};
use crate::broker::config::SharedStrategy;
use crate::proto::{QoS, ReasonCode};
use crate::store::{MessageRecord, StoreError};

/// How soon a session can take a message; later is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It would be dropped.
    Never,
    /// The queue is full: the settings say what happens then.
    Full,
    /// The session is away and queues it.
    Offline,
    /// It waits for the window or the socket.
    Busy,
    /// At once.
    Now,
}

/// Chooses among the members of groups, as the settings say.
#[derive(Debug)]
pub(super) struct Chooser {
    /// State of the random numbers; they need to be spread, not secret.
    dice: u64,
}

/// A strategy with what it needs for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    RoundRobin,
    Random(u64),
    LeastInflight,
    Sticky,
    /// The hash of the publisher.
    Hash(u64),
}

impl Chooser {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            dice: RandomState::new().build_hasher().finish(),
        }
    }

    /// Hands a message to one member of each of these groups: how many groups took it, and how many had only full
    /// queues.
    pub(super) fn deliver(
        &mut self,
        groups: &[GroupId],
        subscriptions: &mut Subscriptions,
        sessions: &mut Sessions,
        publication: &mut Publication<'_>,
        from: Option<SessionSlot>,
        now: Instant,
    ) -> (usize, usize) {
        let (mut matched, mut full) = (0, 0);
        for id in groups {
            let turn = self.turn(sessions, from);
            let Some(group) = subscriptions.group_mut(*id) else {
                continue;
            };
            let Some(receiver) = choose(group, turn, publication.qos, sessions) else {
                continue;
            };
            matched += 1;
            let from_group = Membership {
                id: *id,
                text: &group.text,
            };
            let delivered = sessions.deliver(&receiver, Some(from_group), publication, now);
            full += usize::from(delivered == Delivered::QueueFull);
        }
        (matched, full)
    }

    fn turn(&mut self, sessions: &Sessions, from: Option<SessionSlot>) -> Turn {
        match sessions.settings.shared_strategy {
            SharedStrategy::RoundRobin => Turn::RoundRobin,
            SharedStrategy::Random => Turn::Random(self.roll()),
            SharedStrategy::LeastInflight => Turn::LeastInflight,
            SharedStrategy::Sticky => Turn::Sticky,
            SharedStrategy::Hash => {
                let publisher = from.and_then(|slot| sessions.session(slot));
                let mut hasher = FxHasher::default();
                hasher.write(publisher.map_or(&[], |session| session.client_id.as_bytes()));
                Turn::Hash(hasher.finish())
            }
        }
    }

    /// The next random number.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(GOLDEN_RATIO);
        mix(self.dice)
    }
}

impl Router {
    /// The session is over: what it had of shared subscriptions goes to other members of their groups. A QoS 2 message
    /// that was sent already may have arrived, so nobody else gets it. [MQTT-4.8.2-5]
    pub(super) fn pass_on_session(&mut self, mut session: Session, now: Instant) {
        self.sessions.journal.note_ending(&session);
        let inflight = session.outgoing.drain();
        let queue = std::mem::take(&mut session.queue).into_deliveries();
        let (left, over): (Vec<_>, Vec<_>) = inflight
            .map(|flow| (flow.qos == QoS::AtLeastOnce, flow.message))
            .chain(queue.map(|delivery| (true, delivery)))
            .partition(|(may_pass, delivery)| *may_pass && delivery.group.is_some());
        let left: Vec<_> = left.into_iter().map(|(_, delivery)| delivery).collect();
        let has_heirs = left.iter().any(|delivery| delivery.message.is_none());
        if has_heirs {
            self.keep_for_heirs(&mut session, &left);
        }
        for (_, delivery) in &over {
            if has_heirs {
                self.sessions
                    .journal
                    .delete_entry_alone(session.key, delivery);
            }
            if let Some(stored) = delivery.stored {
                self.sessions.journal.forget(stored);
            }
        }
        let heirs = self.pass_on(left, now);
        let Some(key) = session.key else { return };
        if heirs.is_empty() {
            self.sessions.journal.delete_session(key);
            return;
        }
        let ids = heirs.iter().filter_map(Delivery::away).collect();
        self.sessions.journal.read(Waiter::Heirs(key, heirs), ids);
    }

    /// Some of what a session leaves is in the store alone: its record keeps that there until somebody else has it. It
    /// keeps nothing else, and a restart finds a session that is over.
    fn keep_for_heirs(&mut self, session: &mut Session, left: &[Delivery]) {
        let journal = &mut self.sessions.journal;
        session.expiry = SessionExpiry::AtDisconnect;
        journal.put_session(session, None);
        for text in session.subscriptions.keys() {
            journal.delete_subscription(session.key, text);
        }
        for id in session.incoming.ids() {
            journal.delete_incoming(session.key, id);
        }
        for delivery in left.iter().filter(|delivery| delivery.message.is_some()) {
            journal.delete_entry_alone(session.key, delivery);
        }
    }

    /// The session has left a group: what waits for it as a member goes to the others, if there are any. What was sent
    /// stays with it, and so does what is in the store alone. [MQTT-3.10.4-3]
    pub(super) fn pass_on_queued(&mut self, slot: SessionSlot, group: GroupId, now: Instant) {
        if self.subscriptions.group(group).is_none() {
            return;
        }
        let key = self.sessions.session(slot).and_then(|session| session.key);
        for delivery in self.sessions.take_queued(slot, group) {
            self.sessions.journal.delete_entry_alone(key, &delivery);
            self.pass_on(vec![delivery], now);
        }
    }

    /// Hands deliveries to other members of their groups. Gives back those that are in the store alone.
    fn pass_on(&mut self, left: Vec<Delivery>, now: Instant) -> Vec<Delivery> {
        let mut away = Vec::new();
        for delivery in left {
            let Some(message) = delivery.message.clone() else {
                away.push(delivery);
                continue;
            };
            if let Some(group) = delivery.group.filter(|_| !message.expired(now)) {
                let mut publication = Publication::of(&message);
                publication.stored = delivery.stored.and_then(|stored| stored.message);
                self.chooser.deliver(
                    &[group],
                    &mut self.subscriptions,
                    &mut self.sessions,
                    &mut publication,
                    None,
                    now,
                );
            }
            if let Some(stored) = delivery.stored {
                self.sessions.journal.forget(stored);
            }
        }
        away
    }

    /// What the store had for the router is here.
    pub(super) fn handle_loaded(
        &mut self,
        token: u64,
        result: Result<Vec<Option<MessageRecord>>, StoreError>,
        now: Instant,
    ) {
        let Some((waiter, ids)) = self.sessions.journal.take_read(token) else {
            return;
        };
        let records = match result {
            Ok(records) => records,
            Err(error) => {
                log::error!("cannot read messages from the store: {error}");
                if let Waiter::Session(slot) = waiter {
                    let text = "a queued message cannot be read from the store";
                    let goodbye = Goodbye::new(ReasonCode::UnspecifiedError, text);
                    self.expel(slot, &goodbye, now);
                }
                return;
            }
        };
        let read: Vec<_> = ids.into_iter().zip(records).collect();
        match waiter {
            Waiter::Session(slot) => {
                if self.sessions.put_loaded(slot, token, read, now) {
                    self.sessions.pump(slot, &self.retained, now);
                }
            }
            Waiter::Heirs(key, mut heirs) => {
                let clock = *self.sessions.journal.clock();
                let messages: HashMap<_, _> = read
                    .into_iter()
                    .filter_map(|(id, record)| Some((id, clock.message(record?))))
                    .collect();
                for delivery in &mut heirs {
                    delivery.message = delivery.away().and_then(|id| messages.get(&id).cloned());
                }
                heirs.retain(|delivery| delivery.message.is_some());
                self.pass_on(heirs, now);
                self.sessions.journal.delete_session(key);
            }
        }
    }
}

fn choose(group: &mut Group, turn: Turn, qos: QoS, sessions: &Sessions) -> Option<Receiver> {
    let readiness = |slot, qos| sessions.readiness(slot, qos);
    let load = |slot| {
        let session = sessions.session(slot);
        session.map_or(0, |session| session.outgoing.len() + session.queue.len())
    };
    let at = choose_member(group, turn, qos, readiness, load)?;
    let member = group.members.get(at)?;
    Some(Receiver {
        slot: member.slot,
        qos: member.options.qos,
        retain_as_published: member.options.retain_as_published,
        ids: member.id.map(|id| Arc::from([id])),
        no_local: false,
        without_local: None,
    })
}

/// Picks a member that can take a message of this QoS: one that is online before one that is away, and among those the
/// one whose turn it is. All but the strategies that stay with a member also prefer one that need not let it wait.
fn choose_member(
    group: &mut Group,
    turn: Turn,
    qos: QoS,
    readiness: impl Fn(SessionSlot, QoS) -> Readiness,
    load: impl Fn(SessionSlot) -> usize,
) -> Option<usize> {
    let count = group.members.len();
    let first = match turn {
        // The remainder is smaller than a usize.
        Turn::Random(number) => usize::try_from(number % count.max(1) as u64).unwrap_or(0),
        _ => group.next,
    };
    let mut best = None;
    for step in 0..count {
        let at = (first + step) % count;
        let member = group.members.get(at)?;
        let ready = readiness(member.slot, member.options.qos.min(qos));
        if ready == Readiness::Never {
            continue;
        }
        // At QoS 0 a busy member may lose the message.
        let steady = if qos == QoS::AtMostOnce {
            ready
        } else {
            ready.min(Readiness::Busy)
        };
        let rank = match turn {
            Turn::RoundRobin | Turn::Random(_) => (ready, Reverse(0)),
            Turn::LeastInflight => (ready, Reverse(load(member.slot) as u64)),
            Turn::Sticky => (steady, Reverse(0)),
            Turn::Hash(publisher) => (steady, Reverse(mix(publisher ^ u64::from(member.slot)))),
        };
        if best.is_none_or(|(found, _)| rank > found) {
            best = Some((rank, at));
            if rank == (Readiness::Now, Reverse(0)) {
                break;
            }
        }
    }
    let (_, at) = best?;
    group.next = if turn == Turn::Sticky {
        at
    } else {
        (at + 1) % count
    };
    Some(at)
}

/// Spreads the bits of a number.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::router::subscriptions::Member;
    use crate::proto::ShareName;
    use crate::proto::packet::SubscriptionOptions;

    fn group(members: u32) -> Group {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..SubscriptionOptions::default()
        };
        let member = |slot| Member {
            slot,
            options,
            id: None,
        };
        Group {
            name: ShareName::parse("g").unwrap(),
            text: "$share/g/t".into(),
            members: (0..members).map(member).collect(),
            next: 0,
        }
    }

    fn chosen(
        group: &mut Group,
        turns: impl IntoIterator<Item = Turn>,
        ready: &[Readiness],
        load: &[usize],
    ) -> Vec<Option<usize>> {
        let at = |slot: SessionSlot| slot as usize;
        let choose = |turn| {
            let readiness = |slot, _| ready.get(at(slot)).copied().unwrap_or(Readiness::Now);
            let load = |slot| load.get(at(slot)).copied().unwrap_or(0);
            choose_member(group, turn, QoS::AtLeastOnce, readiness, load)
        };
        turns.into_iter().map(choose).collect()
    }

    const EACH: [Turn; 5] = [
        Turn::RoundRobin,
        Turn::Random(3),
        Turn::LeastInflight,
        Turn::Sticky,
        Turn::Hash(3),
    ];

    #[test]
    fn round_robin_takes_turns() {
        let found = chosen(&mut group(3), [Turn::RoundRobin; 5], &[], &[]);
        assert_eq!(found, [0, 1, 2, 0, 1].map(Some));
    }

    #[test]
    fn random_spreads_over_all() {
        let mut chooser = Chooser { dice: 1 };
        let turns: Vec<_> = (0..300).map(|_| Turn::Random(chooser.roll())).collect();
        let found = chosen(&mut group(3), turns, &[], &[]);
        for at in 0..3 {
            let count = found.iter().filter(|one| **one == Some(at)).count();
            assert!((60..=140).contains(&count), "{at}: {count}");
        }
    }

    #[test]
    fn least_inflight_takes_who_has_least_and_among_equals_turns() {
        let found = chosen(&mut group(3), [Turn::LeastInflight; 3], &[], &[5, 2, 9]);
        assert_eq!(found, [1, 1, 1].map(Some));
        let found = chosen(&mut group(3), [Turn::LeastInflight; 4], &[], &[2, 9, 2]);
        assert_eq!(found, [0, 2, 0, 2].map(Some));
    }

    #[test]
    fn sticky_stays_until_the_member_is_away() {
        use Readiness::{Busy, Now, Offline};
        let mut group = group(3);
        let found = chosen(&mut group, [Turn::Sticky; 2], &[Busy, Now, Now], &[]);
        assert_eq!(found, [0, 0].map(Some));
        let found = chosen(&mut group, [Turn::Sticky; 2], &[Offline, Now, Now], &[]);
        assert_eq!(found, [1, 1].map(Some));
        // And then it stays there.
        let found = chosen(&mut group, [Turn::Sticky], &[Now, Now, Now], &[]);
        assert_eq!(found, [Some(1)]);
    }

    #[test]
    fn hash_gives_a_publisher_always_the_same_member() {
        let mut group = group(4);
        let mut used = std::collections::HashSet::new();
        for publisher in 0..64 {
            let found = chosen(&mut group, [Turn::Hash(mix(publisher)); 3], &[], &[]);
            assert!(found.iter().all(|one| *one == found[0]));
            used.insert(found[0]);
        }
        assert_eq!(used.len(), 4);
    }

    #[test]
    fn hash_moves_only_the_publishers_of_a_member_that_left() {
        let (mut four, mut three) = (group(4), group(3));
        for publisher in (0..64).map(mix) {
            let before = chosen(&mut four, [Turn::Hash(publisher)], &[], &[])[0];
            let after = chosen(&mut three, [Turn::Hash(publisher)], &[], &[])[0];
            assert!(before == Some(3) || before == after);
        }
    }

    #[test]
    fn no_strategy_chooses_a_member_that_would_drop_the_message() {
        use Readiness::{Never, Offline};
        for turn in EACH {
            let found = chosen(&mut group(3), [turn], &[Never, Offline, Never], &[0, 9, 0]);
            assert_eq!(found, [Some(1)], "{turn:?}");
            let found = chosen(&mut group(2), [turn], &[Never, Never], &[]);
            assert_eq!(found, [None], "{turn:?}");
        }
    }

    #[test]
    fn who_is_online_goes_before_who_is_away() {
        use Readiness::{Busy, Offline};
        for turn in EACH {
            let found = chosen(
                &mut group(3),
                [turn; 2],
                &[Offline, Busy, Offline],
                &[0, 9, 0],
            );
            assert_eq!(found, [Some(1), Some(1)], "{turn:?}");
        }
    }
}
