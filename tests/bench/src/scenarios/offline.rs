//! A session whose client is away: its queue fills, and is delivered.

use super::Bench;
use super::measure::{Measured, Meter};
use crate::clock::now;
use crate::connection::{Connection, Received, Scratch};
use crate::fault::Fault;
use crate::frames;

/// Fills the queue of a session whose client is away, lets the client have it, and begins again.
pub(super) fn offline(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(20_000, 1_000);
    let tail = frames::tail(64);
    let filter = ["o/queue".to_owned()];
    let mut away = Connection::connect(bench.plain, "away", false)?;
    away.subscribe(&filter, 1)?;
    leave(away)?;
    let mut publisher = Connection::connect(bench.plain, "sender", true)?;
    let mut sum: Option<[Measured; 2]> = None;
    let end = now() + bench.time;
    while sum.is_none() || (now() < end && !bench.is_smoke) {
        let meter = Meter::start(bench)?;
        enqueue(&mut publisher, count, &tail)?;
        let enqueued = meter.stop(count)?;
        let meter = Meter::start(bench)?;
        let client = Connection::connect(bench.plain, "away", false)?;
        leave(receive_queue(client, count, &tail)?)?;
        let delivered = meter.stop(count)?;
        sum = Some(match sum {
            None => [enqueued, delivered],
            Some([first, second]) => [first.plus(&enqueued), second.plus(&delivered)],
        });
    }
    leave(Connection::connect(bench.plain, "away", true)?)?;
    Ok(sum.into_iter().flatten().collect())
}

/// Says goodbye and waits until the broker has closed the connection: then the session is offline.
pub(super) fn leave(mut connection: Connection) -> Result<(), Fault> {
    connection.send(&frames::DISCONNECT)?;
    connection.flush()?;
    let mut scratch = Scratch::new();
    loop {
        match connection.receive(&mut scratch, |_| Ok(()))? {
            Received::Something => {}
            Received::End => return Ok(()),
            Received::Nothing => {
                return Err(Fault::Wrong("the broker does not close after DISCONNECT"));
            }
        }
    }
}

/// QoS 1 with a window of 100, half of it at a time.
fn enqueue(publisher: &mut Connection, count: u64, tail: &[u8]) -> Result<(), Fault> {
    let prefix = frames::publish_prefix("o/queue", 1, false, 64);
    let mut scratch = Scratch::new();
    let mut batch = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        if sent - acknowledged <= 50 && sent < count {
            batch.clear();
            for number in sent..count.min(sent + 50) {
                frames::push_publish(
                    &mut batch,
                    &prefix,
                    Some((number % 60_000 + 1) as u16),
                    number,
                    0,
                    tail,
                );
            }
            sent = count.min(sent + 50);
            publisher.send(&batch)?;
            publisher.flush()?;
            continue;
        }
        let received = publisher.receive(&mut scratch, |frame| {
            if frame.first != frames::PUBACK || u64::from(frame.id()?) != acknowledged % 60_000 + 1
            {
                return Err(Fault::Wrong("an acknowledgement that is not due"));
            }
            acknowledged += 1;
            Ok(())
        })?;
        if received != Received::Something {
            return Err(Fault::Stalled {
                missing: count - acknowledged,
            });
        }
    }
    Ok(())
}

fn receive_queue(mut client: Connection, count: u64, tail: &[u8]) -> Result<Connection, Fault> {
    let mut scratch = Scratch::new();
    let mut replies = Vec::new();
    let mut due = 0;
    while due < count {
        replies.clear();
        let received = client.receive(&mut scratch, |frame| {
            // A broker that closed the last connection before it noted the end may have tried before.
            let publish = frame.without_dup().publish(1)?;
            let stamp = frames::read_stamp(publish.payload, tail)?;
            if stamp.number != due {
                return Err(Fault::OutOfTurn {
                    due,
                    came: stamp.number,
                });
            }
            due += 1;
            frames::push_ack(&mut replies, frames::PUBACK, publish.id);
            Ok(())
        })?;
        if received != Received::Something {
            return Err(Fault::Stalled {
                missing: count - due,
            });
        }
        client.send(&replies)?;
        client.flush()?;
    }
    Ok(client)
}
