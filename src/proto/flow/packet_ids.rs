//! Packet Identifiers in use on one side of a session, and what each stands for.

use crate::proto::PacketId;

/// The Packet Identifiers that this side has given away, each with a value, in the order in which they were given.
///
/// Identifiers are given in sequence and used again as late as possible. Every operation takes constant time
/// (amortised); an empty map that was never used has no heap memory. At most 65,535 identifiers are in use at once.
///
/// ```text
///   slots, a power of two:   [ _  65 _  3  4  _  6  _ ]      identifier i stands in slot i mod length;
///   linked by identifier:        65 → 3 → 4 → 6               one whose slot is taken is skipped when it is its turn
/// ```
///
/// Source: MQTT 5.0 §2.2.1; MQTT 3.1.1 §2.3.1.
#[derive(Debug, Clone)]
pub struct PacketIds<T> {
    /// INVARIANT: empty, or a power of two of at most 65,536 slots; an identifier stands in slot `id mod length` only.
    slots: Vec<Option<Slot<T>>>,
    len: u16,
    /// The identifier given last; 0 before the first.
    last: u16,
    /// First and last of the linked list; `None` when empty.
    oldest: Option<PacketId>,
    newest: Option<PacketId>,
}

#[derive(Debug, Clone)]
struct Slot<T> {
    id: PacketId,
    older: Option<PacketId>,
    newer: Option<PacketId>,
    value: T,
}

/// A free identifier of a [`PacketIds`], to be given to a value.
#[derive(Debug)]
#[must_use]
pub struct Vacant<'a, T> {
    ids: &'a mut PacketIds<T>,
    id: PacketId,
}

impl<T> Default for PacketIds<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
            last: 0,
            oldest: None,
            newest: None,
        }
    }
}

impl<T> PacketIds<T> {
    /// No identifier is in use; the first one given is 1.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many identifiers are in use.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// No identifier is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every identifier is in use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == u16::MAX
    }

    /// The next free identifier in sequence. `None`: all are in use. [MQTT-2.2.1-4]
    pub fn vacant(&mut self) -> Option<Vacant<'_, T>> {
        if self.is_full() {
            return None;
        }
        self.make_room();
        let id = self.next_free();
        Some(Vacant { ids: self, id })
    }

    /// The identifier `id`, to rebuild a session that was stored. `None`: it is in use.
    pub fn vacant_at(&mut self, id: PacketId) -> Option<Vacant<'_, T>> {
        if self.get(id).is_some() {
            return None;
        }
        self.make_room();
        while self.slot(id).is_some() {
            self.grow();
        }
        Some(Vacant { ids: self, id })
    }

    /// What `id` stands for.
    #[must_use]
    pub fn get(&self, id: PacketId) -> Option<&T> {
        self.slot(id)
            .filter(|slot| slot.id == id)
            .map(|slot| &slot.value)
    }

    /// What `id` stands for.
    #[must_use]
    pub fn get_mut(&mut self, id: PacketId) -> Option<&mut T> {
        self.slot_mut(id).map(|slot| &mut slot.value)
    }

    /// Frees `id` and takes what it stood for.
    pub fn remove(&mut self, id: PacketId) -> Option<T> {
        let index = self.index_of(id);
        let slot = self.slots.get_mut(index)?.take_if(|slot| slot.id == id)?;
        match slot.older {
            Some(older) => self.set_newer(older, slot.newer),
            None => self.oldest = slot.newer,
        }
        match slot.newer {
            Some(newer) => self.set_older(newer, slot.older),
            None => self.newest = slot.older,
        }
        self.len = self.len.saturating_sub(1);
        Some(slot.value)
    }

    /// The identifier that has been in use longest.
    #[must_use]
    pub fn oldest(&self) -> Option<PacketId> {
        self.oldest
    }

    /// The identifier given next after `id`, of those in use.
    #[must_use]
    pub fn newer(&self, id: PacketId) -> Option<PacketId> {
        self.slot(id).filter(|slot| slot.id == id)?.newer
    }

    /// The identifiers in use and what they stand for, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, &T)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(next?)?;
            next = slot.newer;
            Some((slot.id, &slot.value))
        })
    }

    /// Gives the heap memory back if no identifier is in use. The sequence goes on.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.slots = Vec::new();
        }
    }

    /// Keeps half of the slots free, so that the search in [`next_free`](Self::next_free) is short: going once round
    /// gives away at least as many identifiers as it skips.
    fn make_room(&mut self) {
        if usize::from(self.len).saturating_mul(2) >= self.slots.len() {
            self.grow();
        }
    }

    /// Doubles the slots. Two identifiers in different slots stay in different slots: more of their bits count.
    fn grow(&mut self) {
        let slots = match self.slots.len() {
            0 => FIRST_SLOTS,
            MAX_SLOTS => return,
            slots => slots.saturating_mul(2),
        };
        let mut grown = Vec::with_capacity(slots);
        grown.resize_with(slots, || None);
        for slot in std::mem::replace(&mut self.slots, grown)
            .into_iter()
            .flatten()
        {
            let index = self.index_of(slot.id);
            if let Some(place) = self.slots.get_mut(index) {
                *place = Some(slot);
            }
        }
    }

    fn next_free(&self) -> PacketId {
        let mut value = self.last;
        loop {
            value = value.wrapping_add(1);
            if let Some(id) = PacketId::new(value)
                && self.slot(id).is_none()
            {
                return id;
            }
        }
    }

    fn link_newest(&mut self, id: PacketId, value: T) {
        let older = self.newest.replace(id);
        match older {
            Some(older) => self.set_newer(older, Some(id)),
            None => self.oldest = Some(id),
        }
        self.last = id.value();
        let index = self.index_of(id);
        if let Some(place) = self.slots.get_mut(index) {
            debug_assert!(place.is_none(), "the slot of a new identifier is free");
            *place = Some(Slot {
                id,
                older,
                newer: None,
                value,
            });
            self.len = self.len.saturating_add(1);
        }
    }

    fn set_newer(&mut self, id: PacketId, newer: Option<PacketId>) {
        if let Some(slot) = self.slot_mut(id) {
            slot.newer = newer;
        }
    }

    fn set_older(&mut self, id: PacketId, older: Option<PacketId>) {
        if let Some(slot) = self.slot_mut(id) {
            slot.older = older;
        }
    }

    /// Whatever stands where `id` would.
    fn slot(&self, id: PacketId) -> Option<&Slot<T>> {
        self.slots.get(self.index_of(id))?.as_ref()
    }

    fn slot_mut(&mut self, id: PacketId) -> Option<&mut Slot<T>> {
        let index = self.index_of(id);
        self.slots
            .get_mut(index)?
            .as_mut()
            .filter(|slot| slot.id == id)
    }

    /// `id` modulo the number of slots, a power of two; meaningless without slots.
    fn index_of(&self, id: PacketId) -> usize {
        usize::from(id.value()) & self.slots.len().wrapping_sub(1)
    }
}

impl<T> Vacant<'_, T> {
    /// The identifier.
    #[must_use]
    pub fn id(&self) -> PacketId {
        self.id
    }

    /// Gives the identifier to `value`, as the newest.
    pub fn insert(self, value: T) -> PacketId {
        self.ids.link_newest(self.id, value);
        self.id
    }
}

/// Slots of the first allocation: one QoS 1 message at a time needs no more.
const FIRST_SLOTS: usize = 4;

/// One slot for every identifier (and one for 0, which is none).
const MAX_SLOTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    #[test]
    fn identifiers_are_given_in_sequence_and_wrap_without_zero() {
        let mut ids = PacketIds::new();
        for expected in (1..=u16::MAX).chain(1..=3) {
            let given = ids.vacant().unwrap().insert(());
            assert_eq!(given, id(expected));
            assert_eq!(ids.remove(given), Some(()));
        }
    }

    #[test]
    fn all_identifiers_can_be_in_use_and_then_no_more() {
        let mut ids = PacketIds::new();
        for value in 1..=u16::MAX {
            assert_eq!(ids.vacant().unwrap().insert(value), id(value));
        }
        assert!(ids.vacant().is_none());
        assert_eq!(ids.remove(id(777)), Some(777));
        assert_eq!(ids.vacant().unwrap().insert(0), id(777));
        assert_eq!(ids.iter().next(), Some((id(1), &1)));
        assert_eq!(ids.iter().last(), Some((id(777), &0)));
    }

    #[test]
    fn one_that_is_never_freed_does_not_make_the_map_grow() {
        let mut ids = PacketIds::new();
        ids.vacant().unwrap().insert("stuck");
        for _ in 0..200_000 {
            let given = ids.vacant().unwrap().insert("short");
            assert_ne!(given, id(1));
            ids.remove(given);
        }
        assert!(ids.slots.len() <= 8);
        assert_eq!(ids.oldest(), Some(id(1)));
    }

    #[test]
    fn an_unused_map_has_no_heap_memory_and_gives_it_back() {
        let mut ids = PacketIds::new();
        assert_eq!(ids.slots.capacity(), 0);
        let given = ids.vacant().unwrap().insert(1);
        ids.shrink();
        assert_eq!(ids.get(given), Some(&1));
        ids.remove(given);
        ids.shrink();
        assert_eq!(ids.slots.capacity(), 0);
        assert_eq!(ids.vacant().unwrap().insert(1), id(2));
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_pairs(steps in prop::collection::vec((0u8..5, any::<u16>()), 1..200)) {
            let mut ids = PacketIds::new();
            let mut order: Vec<(PacketId, u16)> = Vec::new();
            for (kind, value) in steps {
                match kind {
                    0..=2 => {
                        let given = ids.vacant().unwrap().insert(value);
                        prop_assert!(order.iter().all(|(used, _)| *used != given));
                        order.push((given, value));
                    }
                    3 if !order.is_empty() => {
                        let (freed, expected) = order.remove(usize::from(value) % order.len());
                        prop_assert_eq!(ids.remove(freed), Some(expected));
                        prop_assert_eq!(ids.remove(freed), None);
                    }
                    _ => {
                        let Some(wanted) = PacketId::new(value % 500) else { continue };
                        let free = order.iter().all(|(used, _)| *used != wanted);
                        let vacant = ids.vacant_at(wanted);
                        prop_assert_eq!(vacant.is_some(), free);
                        if let Some(vacant) = vacant {
                            vacant.insert(value);
                            order.push((wanted, value));
                        }
                    }
                }
                let listed: Vec<_> = ids.iter().map(|(id, value)| (id, *value)).collect();
                prop_assert_eq!(&listed, &order);
                prop_assert_eq!(usize::from(ids.len()), order.len());
                for (used, value) in &order {
                    prop_assert_eq!(ids.get(*used), Some(value));
                }
            }
        }
    }
}
