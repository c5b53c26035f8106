//! Both ends of a delivery over a link that is cut at random.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::incoming::{Incoming, Verdict};
use super::outgoing::{Next, Outgoing, Resend};
use crate::proto::{PacketId, QoS, ReasonCode};

#[derive(Debug, Clone, Copy)]
enum FromSender {
    Publish {
        id: PacketId,
        number: usize,
        qos: QoS,
    },
    Pubrel(PacketId),
}

#[derive(Debug, Clone, Copy)]
enum FromReceiver {
    Puback(PacketId),
    Pubrec(PacketId, ReasonCode),
    Pubcomp(PacketId),
}

/// A session's two ends and the packets under way. Messages are their numbers.
struct Link {
    outgoing: Outgoing<usize>,
    incoming: Incoming,
    queue: VecDeque<(usize, QoS)>,
    to_receiver: VecDeque<FromSender>,
    to_sender: VecDeque<FromReceiver>,
    delivered: Vec<usize>,
    completed: Vec<usize>,
    /// The receiver refuses the QoS 2 messages with these numbers.
    refuses: fn(usize) -> bool,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Send,
    SenderReads,
    ReceiverReads,
    /// The packets under way are lost; the next connection has this Receive Maximum.
    Cut(u16),
}

impl Link {
    fn new(levels: &[QoS], window: u16, refuses: fn(usize) -> bool) -> Self {
        Self {
            outgoing: Outgoing::new(window),
            incoming: Incoming::new(window),
            queue: levels.iter().copied().enumerate().collect(),
            to_receiver: VecDeque::new(),
            to_sender: VecDeque::new(),
            delivered: Vec::new(),
            completed: Vec::new(),
            refuses,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Send => self.send(),
            Event::SenderReads => self.sender_reads(),
            Event::ReceiverReads => self.receiver_reads(),
            Event::Cut(window) => self.cut(window),
        }
    }

    fn cut(&mut self, window: u16) {
        self.to_receiver.clear();
        self.to_sender.clear();
        self.outgoing.on_disconnected();
        self.outgoing.set_window(window);
        self.incoming.on_connected(window);
        self.resend();
    }

    fn resend(&mut self) {
        while let Some(packet) = self.outgoing.next_resend() {
            self.to_receiver.push_back(match packet {
                Resend::Publish { id, message, qos } => FromSender::Publish {
                    id,
                    number: *message,
                    qos,
                },
                Resend::Pubrel { id } => FromSender::Pubrel(id),
            });
        }
    }

    fn send(&mut self) {
        if let Some(&(number, qos)) = self.queue.front()
            && let Ok(id) = self.outgoing.start(number, qos)
        {
            self.queue.pop_front();
            let publish = FromSender::Publish { id, number, qos };
            self.to_receiver.push_back(publish);
        }
    }

    fn sender_reads(&mut self) {
        let Some(packet) = self.to_sender.pop_front() else {
            return;
        };
        let completed = match packet {
            FromReceiver::Puback(id) => Some(self.outgoing.on_puback(id, ReasonCode::Success)),
            FromReceiver::Pubcomp(id) => Some(self.outgoing.on_pubcomp(id)),
            FromReceiver::Pubrec(id, reason) => match self.outgoing.on_pubrec(id, reason) {
                Ok(Next::Release) => {
                    self.to_receiver.push_back(FromSender::Pubrel(id));
                    None
                }
                Ok(Next::Completed(number)) => Some(Ok(number)),
                Err(error) => Some(Err(error)),
            },
        };
        // On a link in order, an acknowledgement always fits.
        self.completed.extend(completed.map(Result::unwrap));
        self.resend();
    }

    fn receiver_reads(&mut self) {
        let Some(packet) = self.to_receiver.pop_front() else {
            return;
        };
        let answer = match packet {
            FromSender::Pubrel(id) => {
                self.incoming.on_pubrel(id);
                FromReceiver::Pubcomp(id)
            }
            FromSender::Publish { id, number, qos } => {
                let verdict = self.incoming.on_publish(id, qos).unwrap();
                match (qos, verdict) {
                    (QoS::ExactlyOnce, Verdict::Duplicate) => {
                        FromReceiver::Pubrec(id, ReasonCode::Success)
                    }
                    (QoS::ExactlyOnce, Verdict::Deliver) if (self.refuses)(number) => {
                        self.incoming.on_acknowledged(id);
                        FromReceiver::Pubrec(id, ReasonCode::QuotaExceeded)
                    }
                    (QoS::ExactlyOnce, Verdict::Deliver) => {
                        self.delivered.push(number);
                        FromReceiver::Pubrec(id, ReasonCode::Success)
                    }
                    (_, Verdict::Deliver) => {
                        self.delivered.push(number);
                        self.incoming.on_acknowledged(id);
                        FromReceiver::Puback(id)
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        self.to_sender.push_back(answer);
    }

    /// No more cuts: what is left gets through.
    fn finish(&mut self) {
        while !self.queue.is_empty() || !self.outgoing.is_empty() {
            self.send();
            self.receiver_reads();
            self.sender_reads();
        }
    }
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Send),
        8 => Just(Event::SenderReads),
        8 => Just(Event::ReceiverReads),
        1 => (1u16..6).prop_map(Event::Cut),
    ]
}

fn refuses_every_fifth(number: usize) -> bool {
    number % 5 == 4
}

fn first_times(delivered: &[usize]) -> Vec<usize> {
    let mut first = Vec::new();
    for number in delivered {
        if !first.contains(number) {
            first.push(*number);
        }
    }
    first
}

proptest! {
    /// [MQTT-4.3.2-2], [MQTT-4.3.3-10], [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    #[test]
    fn a_link_cut_at_random_loses_doubles_and_reorders_nothing(
        levels in prop::collection::vec(qos(), 1..40),
        window in 1u16..6,
        events in prop::collection::vec(event(), 0..300),
    ) {
        let mut link = Link::new(&levels, window, refuses_every_fifth);
        for event in events {
            link.handle(event);
        }
        link.finish();

        let is_qos2 = |number: usize| levels[number] == QoS::ExactlyOnce;
        let expected: Vec<_> = (0..levels.len())
            .filter(|number| !(is_qos2(*number) && refuses_every_fifth(*number)))
            .collect();
        prop_assert_eq!(first_times(&link.delivered), expected);
        for number in (0..levels.len()).filter(|number| is_qos2(*number)) {
            prop_assert!(link.delivered.iter().filter(|other| **other == number).count() <= 1);
        }
        link.completed.sort_unstable();
        prop_assert_eq!(link.completed, (0..levels.len()).collect::<Vec<_>>());
        prop_assert!(link.incoming.is_empty());
    }
}
