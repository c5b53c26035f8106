//! What waits for a session, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Delivery;
use crate::broker::router::journal::Stored;
use crate::broker::router::subscriptions::GroupId;
use crate::proto::QoS;
use crate::store::{MessageId, Position};

/// A queue of deliveries. The first are whole; of one behind them that is in the store alone, eight bytes are kept.
#[derive(Debug, Default)]
pub(in crate::broker::router) struct Queue {
    /// INVARIANT: not empty while there is a rest.
    front: VecDeque<Delivery>,
    rest: VecDeque<Part>,
    len: usize,
    /// Of its budget.
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    Whole(Box<Delivery>),
    Run(Run),
}

/// Deliveries at successive positions in the store that differ in nothing but their message.
#[derive(Debug)]
struct Run {
    first: MessageId,
    position: Position,
    qos: QoS,
    retain: bool,
    group: Option<GroupId>,
    ids: Option<Arc<[u32]>>,
    /// How far each message's name is from the first one's, and what it takes of the queue's budget.
    messages: Vec<(u32, u32)>,
}

impl Queue {
    pub(in crate::broker::router) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::broker::router) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it takes of its budget.
    pub(in crate::broker::router) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::broker::router) fn front(&self) -> Option<&Delivery> {
        self.front.front()
    }

    /// The one that so many stand before.
    pub(in crate::broker::router) fn get(&mut self, index: usize) -> Option<&Delivery> {
        self.unpack(index.saturating_add(1));
        self.front.get(index)
    }

    /// The first of them, so many if there are, whole.
    pub(in crate::broker::router) fn first(
        &mut self,
        count: usize,
    ) -> impl Iterator<Item = &mut Delivery> {
        self.unpack(count);
        self.front.iter_mut().take(count)
    }

    pub(in crate::broker::router) fn look_at_all(&self, mut look: impl FnMut(&Delivery)) {
        self.front.iter().for_each(&mut look);
        for part in &self.rest {
            match part {
                Part::Whole(delivery) => look(delivery),
                Part::Run(run) => run.deliveries().for_each(|delivery| look(&delivery)),
            }
        }
    }

    pub(in crate::broker::router) fn push_back(&mut self, delivery: Delivery) {
        self.len += 1;
        self.bytes += delivery.size();
        let id = delivery.away();
        if self.rest.is_empty() && (id.is_none() || self.front.len() < WHOLE) {
            self.front.push_back(delivery);
            return;
        }
        let (Some(id), Some(stored)) = (id, delivery.stored) else {
            self.rest.push_back(Part::Whole(Box::new(delivery)));
            return;
        };
        if let Some(Part::Run(run)) = self.rest.back_mut()
            && run.take(&delivery, id, stored.position)
        {
            return;
        }
        let run = Run {
            first: id,
            position: stored.position,
            qos: delivery.qos,
            retain: delivery.retain,
            group: delivery.group,
            ids: delivery.ids,
            messages: vec![(0, delivery.size_bytes)],
        };
        self.rest.push_back(Part::Run(run));
    }

    pub(in crate::broker::router) fn pop_front(&mut self) -> Option<Delivery> {
        let delivery = self.front.pop_front()?;
        self.len -= 1;
        self.bytes = self.bytes.saturating_sub(delivery.size());
        self.unpack(1);
        if self.is_empty() {
            *self = Self::default();
        }
        Some(delivery)
    }

    /// All of them, in order.
    pub(in crate::broker::router) fn into_deliveries(mut self) -> impl Iterator<Item = Delivery> {
        std::iter::from_fn(move || self.pop_front())
    }

    /// Makes the first of them whole, so many if there are.
    fn unpack(&mut self, count: usize) {
        while self.front.len() < count
            && let Some(part) = self.rest.pop_front()
        {
            match part {
                Part::Whole(delivery) => self.front.push_back(*delivery),
                Part::Run(run) => self.front.extend(run.deliveries()),
            }
        }
    }
}

impl Run {
    /// Takes one more, if it differs in nothing else.
    fn take(&mut self, delivery: &Delivery, id: MessageId, position: Position) -> bool {
        let distance = id.0.get().checked_sub(self.first.0.get());
        let is_next = self.position.0 + self.messages.len() as u64 == position.0;
        let is_like = self.qos == delivery.qos
            && self.retain == delivery.retain
            && self.group == delivery.group
            && self.ids == delivery.ids;
        let Some(distance) = distance.and_then(|distance| u32::try_from(distance).ok()) else {
            return false;
        };
        let fits = is_next && is_like && self.messages.len() < LONGEST_RUN;
        if fits {
            self.messages.push((distance, delivery.size_bytes));
        }
        fits
    }

    fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        (self.position.0..)
            .zip(&self.messages)
            .map(|(position, (distance, size_bytes))| Delivery {
                message: None,
                stored: Some(Stored {
                    message: Some(MessageId(self.first.0.saturating_add((*distance).into()))),
                    position: Position(position),
                }),
                size_bytes: *size_bytes,
                qos: self.qos,
                retain: self.retain,
                ids: self.ids.clone(),
                group: self.group,
            })
    }
}

/// Those that are in the store alone are whole while there are not more. Few in tests: the simulation has short queues.
const WHOLE: usize = if cfg!(test) { 2 } else { 512 };
const LONGEST_RUN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::proto::{Message, TopicName};

    /// In the store alone, at this position.
    fn away(position: u64, message: u64) -> Delivery {
        Delivery {
            message: None,
            stored: Some(Stored {
                message: Some(MessageId(NonZeroU64::new(message).unwrap())),
                position: Position(position),
            }),
            size_bytes: 10,
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: None,
            group: None,
        }
    }

    fn essence(delivery: &Delivery) -> (Option<Stored>, u32, QoS, bool, bool) {
        (
            delivery.stored,
            delivery.size_bytes,
            delivery.qos,
            delivery.retain,
            delivery.message.is_some(),
        )
    }

    /// Runs of any length, broken by whatever breaks one.
    fn mixed() -> Vec<Delivery> {
        let mut all = Vec::new();
        let (mut position, mut message) = (1, 1);
        for number in 0..20_000_u32 {
            let mut delivery = away(position, message);
            delivery.size_bytes = 10 + number % 3;
            if number % 997 == 0 {
                delivery.retain = true;
            }
            if number % 4099 == 0 {
                delivery.qos = QoS::AtMostOnce;
                delivery.stored = None;
                let message = Message::new(TopicName::parse("t").unwrap(), "");
                delivery.message = Some(Arc::new(message));
            } else {
                position += if number % 1503 == 0 { 2 } else { 1 };
                message += if number % 5003 == 0 {
                    1 << 33
                } else {
                    1 + u64::from(number % 7)
                };
            }
            all.push(delivery);
        }
        all
    }

    #[test]
    fn what_is_packed_comes_out_as_it_went_in() {
        let all = mixed();
        let mut queue = Queue::default();
        for delivery in &all {
            queue.push_back(delivery.clone());
        }
        assert_eq!(queue.len(), all.len());
        let bytes: usize = all.iter().map(Delivery::size).sum();
        assert_eq!(queue.bytes(), bytes);
        let mut seen = Vec::new();
        queue.look_at_all(|delivery| seen.push(essence(delivery)));
        let expected: Vec<_> = all.iter().map(essence).collect();
        assert!(seen == expected);
        let first: Vec<_> = queue
            .first(3000)
            .map(|delivery| essence(delivery))
            .collect();
        assert!(first == expected[..3000]);
        for expected in &expected {
            assert_eq!(queue.front().map(essence).as_ref(), Some(expected));
            assert_eq!(
                queue.pop_front().as_ref().map(essence).as_ref(),
                Some(expected)
            );
        }
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn a_million_in_the_store_alone_take_eight_bytes_each() {
        let mut queue = Queue::default();
        for number in 1..=1_000_000 {
            queue.push_back(away(number, number));
        }
        let run_bytes = |part: &Part| match part {
            Part::Whole(_) => size_of::<Delivery>(),
            Part::Run(run) => run.messages.capacity() * size_of::<(u32, u32)>(),
        };
        let parts = queue.rest.capacity() * size_of::<Part>();
        let bytes = parts + queue.rest.iter().map(run_bytes).sum::<usize>();
        assert!(bytes < 9_000_000, "{bytes}");
    }
}
