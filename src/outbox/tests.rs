#![expect(
    clippy::disallowed_methods,
    reason = "deadlines of tests are taken from the clock"
)]

use super::*;

use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};

use crate::net::dial::{DialOptions, dial};
use crate::net::listener::{BindAddress, Listener};
use crate::net::url::Endpoint;

const PATIENCE: Duration = Duration::from_secs(20);

/// An outbox, the socket at its other end, and its events.
fn outbox(options: OutboxOptions) -> (Arc<Outbox>, Socket, Receiver<OutboxEvent>) {
    let (ours, theirs) = Socket::pair("outbox").unwrap();
    let (event, events) = bounded(100);
    let on_event = Box::new(move |outbox_event| event.send(outbox_event).unwrap());
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (
        Outbox::new(Arc::new(ours), Layers::plain(), options, on_event),
        theirs,
        events,
    )
}

pub(super) fn buf(bytes: &[u8]) -> OutBuf {
    let mut buf = OutBuf::new();
    buf.bytes_mut().extend_from_slice(bytes);
    buf
}

fn read_to_end(socket: &Socket) -> Vec<u8> {
    let mut read = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        match socket.read(&mut buffer).unwrap() {
            0 => return read,
            length => read.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Numbered records, so that a lost, doubled or swapped byte shows.
pub(super) struct Records(pub(super) u32);

impl Records {
    pub(super) fn next(&mut self, buf: &mut OutBuf, length: usize) {
        let record = |number: u32| number.to_be_bytes().repeat(length / 4 + 1);
        buf.bytes_mut().extend_from_slice(&self.0.to_be_bytes());
        buf.push_shared(Bytes::from(record(self.0)));
        buf.bytes_mut().extend_from_slice(&(!self.0).to_be_bytes());
        self.0 += 1;
    }
}

pub(super) fn expected(count: u32, length: impl Fn(u32) -> usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes().repeat(length(number) / 4 + 1));
        bytes.extend_from_slice(&(!number).to_be_bytes());
    }
    bytes
}

/// Lengths on both sides of `SHARE_FROM_BYTES`.
pub(super) fn length(number: u32) -> usize {
    [0, 1, 40, 2047, 2048, 5000, 30_000][number as usize % 7]
}

#[test]
fn an_idle_outbox_writes_at_once_and_keeps_the_capacity_of_the_buffer() {
    let (outbox, peer, _events) = outbox(OutboxOptions::default());
    let mut packet = buf(b"hello");
    let capacity = packet.capacity();
    assert_eq!(outbox.send(&mut packet), SendOutcome::Sent);
    assert!(packet.is_empty());
    assert_eq!(packet.capacity(), capacity);
    assert_eq!((outbox.backlog(), outbox.bytes_sent()), (0, 5));
    let mut read = [0; 8];
    assert_eq!(peer.read(&mut read).unwrap(), 5);
}

#[test]
fn an_outbox_is_small() {
    assert!(size_of::<Outbox>() <= 256, "{}", size_of::<Outbox>());
}

#[test]
fn a_stalled_peer_gets_everything_in_order_once_it_reads() {
    let (outbox, peer, events) = outbox(OutboxOptions {
        soft_limit_bytes: 100_000,
        ..OutboxOptions::default()
    });
    let mut records = Records(0);
    let mut packet = OutBuf::new();
    let mut full = 0;
    for number in 0..300 {
        records.next(&mut packet, length(number));
        match outbox.send(&mut packet) {
            SendOutcome::Full => full += 1,
            SendOutcome::Sent => assert_eq!(full, 0, "nothing is sent past what waits"),
            SendOutcome::Queued => {}
            SendOutcome::Closed => panic!("closed"),
        }
    }
    assert!(full > 0);
    assert!(outbox.backlog() > 100_000);
    outbox.close();
    let expected = expected(300, length);
    assert!(
        read_to_end(&peer) == expected,
        "the bytes are those that were sent"
    );
    assert_eq!(outbox.bytes_sent(), expected.len() as u64);
    assert!(events.try_recv().is_err(), "a closed outbox tells nothing");
}

#[test]
fn every_full_is_followed_by_drained_when_the_peer_reads_again() {
    let (outbox, peer, events) = outbox(OutboxOptions {
        soft_limit_bytes: 200_000,
        ..OutboxOptions::default()
    });
    let (total, totals) = bounded(1);
    let reader = crate::thread::spawn("reader", 0, move || {
        total.send(read_to_end(&peer).len()).unwrap()
    })
    .unwrap();
    let mut sent = 0;
    for _ in 0..20 {
        let mut told = SendOutcome::Sent;
        while told != SendOutcome::Full {
            let mut packet = buf(&[7; 50_000]);
            sent += packet.len();
            told = outbox.send(&mut packet);
            assert_ne!(told, SendOutcome::Closed);
        }
        assert!(matches!(
            events.recv_timeout(PATIENCE).unwrap(),
            OutboxEvent::Drained
        ));
        assert!(outbox.backlog() < 200_000 / 2);
    }
    outbox.close();
    reader.join().unwrap();
    assert_eq!(totals.recv().unwrap(), sent);
}

#[test]
fn a_peer_that_takes_nothing_for_the_write_timeout_is_given_up() {
    let options = OutboxOptions {
        write_timeout: Duration::from_millis(50),
        soft_limit_bytes: 1000,
        id: 3,
    };
    let (outbox, _peer, events) = outbox(options);
    while outbox.send(&mut buf(&[0; 100_000])) == SendOutcome::Sent {}
    match events.recv_timeout(PATIENCE).unwrap() {
        OutboxEvent::Failed(NetError::Io(error)) => {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut)
        }
        event => panic!("{event:?}"),
    }
    assert!(outbox.is_closed());
    assert_eq!(outbox.backlog(), 0);
    assert_eq!(outbox.send(&mut buf(b"x")), SendOutcome::Closed);
    assert_eq!(
        outbox.socket.read(&mut [0]).unwrap(),
        0,
        "the reader is woken"
    );
}

#[test]
fn a_peer_that_is_gone_is_told_by_the_outcome() {
    let (outbox, peer, events) = outbox(OutboxOptions::default());
    drop(peer);
    let mut packet = buf(b"x");
    assert_eq!(outbox.send(&mut packet), SendOutcome::Closed);
    assert!(packet.is_empty());
    assert!(events.try_recv().is_err());
}

#[test]
fn appended_bytes_wait_for_the_flush() {
    let (outbox, peer, _events) = outbox(OutboxOptions::default());
    assert_eq!(outbox.append(&mut buf(b"a")), SendOutcome::Queued);
    assert_eq!(outbox.append(&mut buf(b"b")), SendOutcome::Queued);
    assert_eq!(outbox.backlog(), 2);
    assert_eq!(outbox.flush(), SendOutcome::Sent);
    assert_eq!(outbox.backlog(), 0);
    assert_eq!(outbox.append(&mut buf(b"c")), SendOutcome::Queued);
    assert_eq!(outbox.send(&mut buf(b"d")), SendOutcome::Sent);
    outbox.close();
    assert_eq!(read_to_end(&peer), b"abcd");
}

#[test]
fn a_flush_that_catches_up_at_once_still_gives_the_event_that_append_promised() {
    let (outbox, peer, events) = outbox(OutboxOptions {
        soft_limit_bytes: 10,
        ..OutboxOptions::default()
    });
    assert_eq!(outbox.append(&mut buf(&[1; 11])), SendOutcome::Full);
    assert_eq!(outbox.flush(), SendOutcome::Sent);
    assert!(matches!(
        events.recv_timeout(PATIENCE).unwrap(),
        OutboxEvent::Drained
    ));
    drop(peer);
    assert_eq!(outbox.append(&mut buf(&[1; 11])), SendOutcome::Full);
    assert_eq!(outbox.flush(), SendOutcome::Closed);
    assert!(matches!(
        events.recv_timeout(PATIENCE).unwrap(),
        OutboxEvent::Failed(_)
    ));
}

#[test]
fn abort_drops_what_waits_and_ends_the_drain_thread() {
    let (outbox, peer, events) = outbox(OutboxOptions::default());
    while outbox.send(&mut buf(&[0; 100_000])) == SendOutcome::Sent {}
    outbox.abort();
    assert_eq!(outbox.send(&mut buf(b"x")), SendOutcome::Closed);
    let _ = read_to_end(&peer);
    let deadline = Instant::now() + PATIENCE;
    while Arc::strong_count(&outbox) > 1 {
        assert!(Instant::now() < deadline, "the drain thread is still there");
        std::thread::yield_now();
    }
    assert!(events.try_recv().is_err());
}

#[test]
fn a_peer_that_still_sends_gets_our_last_words_and_then_the_end() {
    let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
    let port = listener.socket_address().unwrap().port();
    let peer = dial(&Endpoint::tcp("127.0.0.1", port), &DialOptions::default())
        .unwrap()
        .socket;
    let socket = Arc::new(listener.accept().unwrap());
    let outbox = Outbox::new(
        Arc::clone(&socket),
        Layers::plain(),
        OutboxOptions::default(),
        Box::new(|_| ()),
    );
    peer.write_all(&[0; 100_000]).unwrap();
    assert_eq!(outbox.send(&mut buf(b"last words")), SendOutcome::Sent);
    outbox.close();
    assert_eq!(outbox.send(&mut buf(b"more")), SendOutcome::Closed);
    let begin = Instant::now();
    peer.write_all(&[0; 100_000]).unwrap();
    let reader = crate::thread::spawn("reader", 0, move || socket.discard_until_end()).unwrap();
    assert_eq!(read_to_end(&peer), b"last words");
    // The peer keeps its side open, which is given up after a while.
    reader.join().unwrap();
    assert!(begin.elapsed() < PATIENCE);
    drop(outbox);
}

#[test]
fn many_senders_at_once_lose_and_tear_nothing() {
    let (outbox, peer, _events) = outbox(OutboxOptions {
        soft_limit_bytes: usize::MAX,
        ..OutboxOptions::default()
    });
    let senders: Vec<_> = (0..4_u8)
        .map(|sender| {
            let outbox = Arc::clone(&outbox);
            let send = move || {
                for _ in 0..2000 {
                    let mut packet = buf(&[sender; 700]);
                    packet.push_shared(Bytes::from(vec![sender; 3000]));
                    assert_ne!(outbox.send(&mut packet), SendOutcome::Closed);
                }
            };
            crate::thread::spawn("sender", 0, send).unwrap()
        })
        .collect();
    let reader = crate::thread::spawn("reader", 0, move || read_to_end(&peer)).unwrap();
    for sender in senders {
        sender.join().unwrap();
    }
    outbox.close();
    let read = reader.join().unwrap();
    assert_eq!(read.len(), 4 * 2000 * 3700);
    assert!(
        read.chunks(3700)
            .all(|packet| packet.iter().all(|byte| *byte == packet[0])),
        "every packet is whole"
    );
}
