//! What happens in one execution: some clients, their bytes in pieces, and how they leave.

use bytes::Bytes;
use hbmqtt::proto::{Decoder, ProtocolVersion};

use crate::mutate;
use crate::packets::{self, Terms};
use crate::random::Random;

/// Clients of one execution, at most.
pub(crate) const MOST_CLIENTS: usize = 3;

/// `max-connect-packet-size` of the fuzzer's brokers.
pub(crate) const LARGEST_CONNECT: usize = 4096;

/// One execution, decided beforehand by its random numbers alone.
#[derive(Debug)]
pub(crate) struct Play {
    /// For each client what its first packet says, if that is a CONNECT without a fault.
    pub(crate) clients: Vec<Option<Terms>>,
    /// What the clients do, in this order.
    pub(crate) steps: Vec<Step>,
}

/// What one client does next.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) act: Act,
}

#[derive(Debug)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Waits until the broker has dealt with what was sent, if it does.
    Settle,
    /// Ends its direction, and reads until the broker has ended the other.
    Close,
    /// Closes its socket at once, read or not.
    Vanish,
}

impl Play {
    /// The play of these random numbers.
    pub(crate) fn compose(random: &mut Random, corpus: &[Vec<u8>]) -> Self {
        let count = 1 + random.below(MOST_CLIENTS);
        let mut clients = Vec::new();
        let mut parts: Vec<Vec<Act>> = Vec::new();
        for _ in 0..count {
            let (bytes, terms) = conversation(random, corpus);
            clients.push(terms);
            let mut acts: Vec<_> = split(random, &bytes).into_iter().map(Act::Send).collect();
            if !random.once_in(4) {
                acts.push(Act::Settle);
            }
            acts.push(if random.once_in(6) {
                Act::Vanish
            } else {
                Act::Close
            });
            acts.reverse();
            parts.push(acts);
        }
        Self {
            clients,
            steps: interleave(random, parts),
        }
    }
}

/// All that a client sends.
fn conversation(random: &mut Random, corpus: &[Vec<u8>]) -> (Vec<u8>, Option<Terms>) {
    if random.once_in(20) {
        let length = random.below(200);
        return ((0..length).map(|_| random.byte()).collect(), None);
    }
    let (connect, terms) = packets::connect(random);
    let mut list = vec![connect];
    if terms.authenticates {
        for _ in 0..random.below(4) {
            list.push(packets::auth(random));
        }
    }
    for _ in 0..random.below(10) {
        list.push(packets::any(random, terms.version));
    }
    let mut terms = Some(terms).filter(|_| is_understood(&list[0]));
    for _ in 0..faults(random) {
        if list.is_empty() {
            break;
        }
        let at = random.below(list.len());
        let kind = random.below(8);
        match kind {
            0 => drop(list.remove(at)),
            1 => list.insert(at, random.choose(corpus).clone()),
            2 => list.swap(at, 0),
            3 => list.insert(at, list[at].clone()),
            _ => list[at] = mutate::change_one(random, corpus, &list[at]),
        }
        if at == 0 || kind == 2 {
            terms = None;
        }
    }
    (list.concat(), terms)
}

/// Whether a broker comes to know what this CONNECT says, accepted or not.
fn is_understood(connect: &[u8]) -> bool {
    let decoder = Decoder::new(ProtocolVersion::V5);
    let frame = decoder.frame(connect).ok().flatten();
    connect.len() < LARGEST_CONNECT
        && frame.is_some_and(|frame| {
            let packet = Bytes::copy_from_slice(connect);
            decoder.decode(frame, &packet).is_ok()
        })
}

/// How many packets of a conversation are spoilt: none in every second one.
fn faults(random: &mut Random) -> usize {
    if random.once_in(2) {
        0
    } else {
        1 + random.below(3)
    }
}

/// Cuts the bytes where the network might.
fn split(random: &mut Random, bytes: &[u8]) -> Vec<Vec<u8>> {
    if random.once_in(64) {
        return bytes.iter().take(200).map(|byte| vec![*byte]).collect();
    }
    let mut cuts: Vec<_> = (0..random.below(6))
        .map(|_| random.below(bytes.len() + 1))
        .collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec());
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// Puts what the clients do into one order. Each part is in reverse.
fn interleave(random: &mut Random, mut parts: Vec<Vec<Act>>) -> Vec<Step> {
    let mut steps = Vec::new();
    // One client's part before the next one's is a usual order, and the one in which sessions are resumed.
    let in_turn = random.once_in(3);
    while parts.iter().any(|part| !part.is_empty()) {
        let mut client = if in_turn {
            0
        } else {
            random.below(parts.len())
        };
        while parts[client].is_empty() {
            client = (client + 1) % parts.len();
        }
        if let Some(act) = parts[client].pop() {
            steps.push(Step { client, act });
        }
    }
    steps
}
