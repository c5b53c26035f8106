//! The subscribers of one filter.

use std::collections::BTreeMap;

use super::{SessionSlot, Subscription};

/// One session's subscription to one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) slot: SessionSlot,
    pub(super) subscription: Subscription,
}

/// The subscribers of a filter, ordered by session. Most filters have one, which then takes no memory of its own; a filter
/// with very many is changed without moving all of them.
#[derive(Debug)]
pub(super) enum Subscribers {
    One(Subscriber),
    /// Ordered by session.
    Few(Vec<Subscriber>),
    #[expect(
        clippy::box_collection,
        reason = "keeps the other two forms at 24 bytes"
    )]
    Many(Box<BTreeMap<SessionSlot, Subscription>>),
}

impl Subscribers {
    /// Adds a subscriber, or replaces the session's earlier subscription, which is given back.
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> Option<Subscription> {
        match self {
            Self::One(only) if only.slot == subscriber.slot => {
                Some(std::mem::replace(only, subscriber).subscription)
            }
            Self::One(only) => {
                let mut both = vec![*only, subscriber];
                both.sort_by_key(|subscriber| subscriber.slot);
                *self = Self::Few(both);
                None
            }
            Self::Few(few) => match position(few, subscriber.slot) {
                Ok(index) => Some(std::mem::replace(&mut few[index], subscriber).subscription),
                Err(index) if few.len() < MAX_FEW => {
                    few.insert(index, subscriber);
                    None
                }
                Err(_) => {
                    let all = few.iter().copied().chain([subscriber]);
                    let many = all.map(|Subscriber { slot, subscription }| (slot, subscription));
                    *self = Self::Many(Box::new(many.collect()));
                    None
                }
            },
            Self::Many(many) => many.insert(subscriber.slot, subscriber.subscription),
        }
    }

    /// Removes the session's subscription. `false`: it has none.
    pub(super) fn remove(&mut self, slot: SessionSlot) -> bool {
        match self {
            Self::One(only) if only.slot == slot => {
                *self = Self::Few(Vec::new());
                true
            }
            Self::One(_) => false,
            Self::Few(few) => {
                let Ok(index) = position(few, slot) else {
                    return false;
                };
                few.remove(index);
                if let [only] = few[..] {
                    *self = Self::One(only);
                }
                true
            }
            Self::Many(many) => {
                let existed = many.remove(&slot).is_some();
                if many.len() <= MAX_FEW / 2 {
                    *self = Self::Few(self.iter().collect());
                }
                existed
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// All subscribers, ordered by session.
    pub(super) fn iter(&self) -> impl Iterator<Item = Subscriber> {
        let (few, many) = match self {
            Self::One(only) => (std::slice::from_ref(only), None),
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        let many = many.into_iter().flat_map(|many| many.iter());
        let many = many.map(|(&slot, &subscription)| Subscriber { slot, subscription });
        few.iter().copied().chain(many)
    }
}

fn position(few: &[Subscriber], slot: SessionSlot) -> Result<usize, usize> {
    few.binary_search_by_key(&slot, |subscriber| subscriber.slot)
}

/// Up to so many subscribers stand in a list.
const MAX_FEW: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::packet::SubscriptionOptions;

    fn subscriber(slot: SessionSlot, id: u32) -> Subscriber {
        Subscriber {
            slot,
            subscription: Subscription {
                options: SubscriptionOptions::default(),
                id: Some(id),
            },
        }
    }

    #[test]
    fn behaves_like_a_map_in_every_form() {
        assert_eq!(size_of::<Option<Subscribers>>(), 24);
        let mut subscribers = Subscribers::One(subscriber(5, 0));
        let mut expected = BTreeMap::from([(5, 0)]);
        // A fixed walk over slots that grows through all forms, replaces, and shrinks again.
        let slots = || (0..1000u32).map(|step| step * 7919 % 1009);
        for (step, slot) in (1..).zip(slots().chain(slots())) {
            let before = subscribers.insert(subscriber(slot, step));
            let replaced = expected.insert(slot, step);
            assert_eq!(before.map(|before| before.id), replaced.map(Some));
        }
        let check = |subscribers: &Subscribers, expected: &BTreeMap<u32, u32>| {
            let listed = subscribers
                .iter()
                .map(|one| (one.slot, one.subscription.id));
            assert!(listed.eq(expected.iter().map(|(slot, id)| (*slot, Some(*id)))));
        };
        check(&subscribers, &expected);
        for slot in slots() {
            assert!(subscribers.remove(slot));
            assert!(!subscribers.remove(slot));
            expected.remove(&slot);
            check(&subscribers, &expected);
        }
        assert_eq!(subscribers.is_empty(), expected.is_empty());
    }
}
