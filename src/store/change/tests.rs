use proptest::prelude::*;

use super::*;
use crate::proto::{Message, QoS};
use crate::store::{MemoryState, SubscriptionRecord};
use std::num::NonZeroU64;
use std::sync::Arc;

fn message(id: u64, text: &str) -> Change {
    let topic = TopicName::parse("a").unwrap();
    let record = MessageRecord {
        message: Arc::new(Message::new(topic, text.to_owned())),
        expires_at: None,
    };
    Change::PutMessage(message_id(id), record)
}

fn message_id(id: u64) -> MessageId {
    MessageId(NonZeroU64::new(id).unwrap())
}

fn entry(message: u64) -> EntryRecord {
    EntryRecord {
        message: Some(message_id(message)),
        size_bytes: 10,
        qos: QoS::ExactlyOnce,
        retain: false,
        ids: None,
        group: None,
        state: EntryState::Waiting,
    }
}

#[test]
fn what_came_and_went_in_one_set_is_not_in_it() {
    let (key, position) = (SessionKey(1), Position(4));
    let packet_id = PacketId::MIN;
    let set = ChangeSet::of([
        message(1, "x"),
        Change::PutEntry(key, position, entry(1)),
        Change::UpdateEntry(key, position, EntryState::Sent(packet_id)),
        Change::DeleteEntry(key, position),
        Change::DeleteMessage(message_id(1)),
        Change::PutIncoming(key, packet_id),
        Change::DeleteIncoming(key, packet_id),
    ]);
    assert!(set.is_empty(), "{set:?}");
}

#[test]
fn what_an_earlier_set_brought_is_deleted() {
    let (key, position) = (SessionKey(1), Position(4));
    let set = ChangeSet::of([
        Change::UpdateEntry(key, position, EntryState::Sent(PacketId::MIN)),
        Change::DeleteEntry(key, position),
        Change::DeleteMessage(message_id(1)),
        Change::DeleteIncoming(key, PacketId::MIN),
    ]);
    assert_eq!(set.len(), 3);
    assert_eq!(set.entries().next().unwrap().2, EntryChange::Delete);
}

#[test]
fn what_may_have_been_written_is_deleted() {
    let (key, position) = (SessionKey(1), Position(4));
    let mut set = ChangeSet::of([
        message(1, "x"),
        Change::PutEntry(key, position, entry(1)),
        Change::PutIncoming(key, PacketId::MIN),
    ]);
    set.doubt();
    set.extend([
        Change::DeleteEntry(key, position),
        Change::DeleteMessage(message_id(1)),
        Change::DeleteIncoming(key, PacketId::MIN),
    ]);
    assert_eq!(set.len(), 3);
    assert_eq!(set.message(message_id(1)), Some(None));
}

#[test]
fn an_ended_session_takes_all_below_it_along() {
    let (key, next) = (SessionKey(1), SessionKey(2));
    let filter = ByteString::from("a/#");
    let record = SubscriptionRecord {
        filter: filter.clone(),
        share: None,
        options: Default::default(),
        id: None,
        replay: None,
    };
    let mut set = ChangeSet::new();
    for key in [SessionKey(0), key, next] {
        set.extend([
            Change::PutSubscription(key, filter.clone(), record.clone()),
            Change::PutIncoming(key, PacketId::MAX),
            Change::PutEntry(key, Position(u64::MAX), entry(1)),
        ]);
    }
    set.push(Change::DeleteSession(key));
    set.push(Change::DeleteEntry(key, Position(1)));
    assert_eq!(set.len(), 7);
    assert_eq!(set.ended_sessions().collect::<Vec<_>>(), [key]);
    assert!(set.entries().all(|(of, ..)| of != key));
}

/// A history that an owner of a state can have: numbers say what happens, `alive` keeps the rules.
pub(in crate::store) fn history(numbers: &[(u8, u8, u8)]) -> Vec<Change> {
    let mut alive = Alive::default();
    let changes = numbers.iter().filter_map(|number| alive.change(*number));
    changes.collect()
}

#[derive(Default)]
struct Alive {
    sessions: Vec<SessionKey>,
    given: u64,
    incoming: Vec<(SessionKey, PacketId)>,
    entries: Vec<(SessionKey, Position)>,
    /// What never goes back to sent.
    released: Vec<(SessionKey, Position)>,
    messages: Vec<MessageId>,
}

impl Alive {
    fn change(&mut self, (what, which, with): (u8, u8, u8)) -> Option<Change> {
        let which = usize::from(which);
        let session = pick(&self.sessions, which);
        let packet_id = PacketId::new(u16::from(with % 3) + 1)?;
        let filter = ByteString::from(format!("f/{}", with % 3));
        self.given += 1;
        Some(match what % 14 {
            0 | 1 => {
                let key = SessionKey(self.given);
                self.sessions.push(key);
                Change::PutSession(key, Box::new(record(with)))
            }
            2 => Change::PutSession(session?, Box::new(record(with))),
            3 => {
                let key = session?;
                self.sessions.retain(|of| *of != key);
                self.incoming.retain(|(of, _)| *of != key);
                self.entries.retain(|(of, _)| *of != key);
                Change::DeleteSession(key)
            }
            4 => {
                let record = SubscriptionRecord {
                    filter: filter.clone(),
                    share: None,
                    options: Default::default(),
                    id: Some(u32::from(with)),
                    replay: None,
                };
                Change::PutSubscription(session?, filter, record)
            }
            5 => Change::DeleteSubscription(session?, filter),
            6 => {
                let incoming = (session?, packet_id);
                if self.incoming.contains(&incoming) {
                    return None;
                }
                self.incoming.push(incoming);
                Change::PutIncoming(incoming.0, incoming.1)
            }
            7 => {
                let (key, id) = take(&mut self.incoming, which)?;
                Change::DeleteIncoming(key, id)
            }
            8 => {
                self.messages.push(message_id(self.given));
                message(self.given, &"text".repeat(usize::from(with) * 8))
            }
            9 => Change::DeleteMessage(take(&mut self.messages, which)?),
            10 => {
                let place = (session?, Position(self.given));
                self.entries.push(place);
                Change::PutEntry(place.0, place.1, entry(u64::from(with) + 1))
            }
            11 => {
                let (key, position) = pick(&self.entries, which)?;
                let state = if with % 2 == 0 && !self.released.contains(&(key, position)) {
                    EntryState::Sent(packet_id)
                } else {
                    self.released.push((key, position));
                    EntryState::Released(packet_id)
                };
                Change::UpdateEntry(key, position, state)
            }
            12 => {
                let (key, position) = take(&mut self.entries, which)?;
                Change::DeleteEntry(key, position)
            }
            _ => {
                let topic = TopicName::parse(format!("t/{}", which % 3)).ok()?;
                if with % 2 == 0 {
                    return Some(Change::DeleteRetained(topic));
                }
                let message = Arc::new(Message::new(topic, vec![with]));
                Change::PutRetained(Box::new(RetainedRecord {
                    message: MessageRecord {
                        message,
                        expires_at: None,
                    },
                    publisher: None,
                }))
            }
        })
    }
}

fn pick<T: Copy>(of: &[T], which: usize) -> Option<T> {
    of.get(which.checked_rem(of.len())?).copied()
}

fn take<T>(of: &mut Vec<T>, which: usize) -> Option<T> {
    let at = which.checked_rem(of.len())?;
    Some(of.swap_remove(at))
}

fn record(with: u8) -> SessionRecord {
    SessionRecord {
        client_id: format!("c{with}").into(),
        user: None,
        listener: "default".into(),
        version: crate::proto::ProtocolVersion::V5,
        expiry_seconds: u32::from(with),
        disconnected_at: None,
        will: None,
    }
}

proptest! {
    #[test]
    fn merged_changes_come_to_what_they_come_to_one_by_one(
        numbers in prop::collection::vec(any::<(u8, u8, u8)>(), 0..200),
        sizes in prop::collection::vec((1..30_usize, any::<bool>()), 1..40),
    ) {
        let changes = history(&numbers);
        let (mut one_by_one, mut merged) = (MemoryState::default(), MemoryState::default());
        let mut rest = changes.into_iter();
        let mut set = ChangeSet::new();
        for (size, applied_with_an_error) in sizes {
            for change in rest.by_ref().take(size) {
                one_by_one.apply_change(change.clone());
                set.push(change);
            }
            merged.apply(&set);
            if applied_with_an_error {
                set.doubt();
            } else {
                set = ChangeSet::new();
            }
            prop_assert_eq!(&merged, &one_by_one);
        }
    }
}
