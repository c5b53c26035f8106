//! Retained messages: set, and delivered to new subscribers.

use std::ops::Range;

use super::Bench;
use super::measure::{Measured, Meter};
use crate::clock::now;
use crate::connection::{Connection, Received, Scratch, Target};
use crate::fault::Fault;
use crate::frames;

/// Sets retained messages on as many topics, then lets new clients have all of them, one after the other.
pub(super) fn retained(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(50_000, 1_000);
    let tail = frames::tail(64);
    let mut publisher = Connection::connect(bench.plain, "retainer", true)?;
    let meter = Meter::start(bench)?;
    let mut rounds = 0;
    let end = now() + bench.time / 2;
    while rounds == 0 || (now() < end && !bench.is_smoke) {
        set(&mut publisher, 0..count, rounds, &tail)?;
        rounds += 1;
    }
    let all_set = meter.stop(u64::from(rounds) * count)?;
    let meter = Meter::start(bench)?;
    let end = now() + bench.time / 2;
    let mut receivers = 0;
    while receivers == 0 || (now() < end && !bench.is_smoke) {
        receive(bench.plain, count, rounds - 1, &tail)?;
        receivers += 1;
    }
    Ok(vec![all_set, meter.stop(receivers * count)?])
}

fn topic(number: u64) -> String {
    format!("r/{}/{number}", number % 100)
}

/// Sets a retained message on each topic, and returns when the broker has dealt with all of them.
pub(super) fn set(
    publisher: &mut Connection,
    numbers: Range<u64>,
    round: u32,
    tail: &[u8],
) -> Result<(), Fault> {
    let payload_bytes = frames::STAMP_BYTES + tail.len();
    let mut batch = Vec::new();
    for number in numbers {
        let prefix = frames::publish_prefix(&topic(number), 0, true, payload_bytes);
        frames::push_publish(&mut batch, &prefix, None, number, round, tail);
        if batch.len() > 32 * 1024 {
            publisher.send(&batch)?;
            publisher.flush()?;
            batch.clear();
        }
    }
    // What was sent before an acknowledged message is dealt with.
    let prefix = frames::publish_prefix("fence", 1, false, payload_bytes);
    frames::push_publish(&mut batch, &prefix, Some(1), 0, 0, tail);
    publisher.exchange(&batch, frames::PUBACK, |_| Ok(()))
}

fn receive(target: &Target, count: u64, round: u32, tail: &[u8]) -> Result<(), Fault> {
    let mut receiver = Connection::connect(target, "collector", true)?;
    receiver.send(&frames::subscribe(1, &["r/#".to_owned()], 0))?;
    receiver.flush()?;
    let mut seen = vec![false; count as usize];
    let mut missing = count;
    let mut scratch = Scratch::new();
    while missing > 0 {
        let received = receiver.receive(&mut scratch, |frame| {
            if frame.first == frames::SUBACK {
                return Ok(());
            }
            let publish = frame.publish(0)?;
            let stamp = frames::read_stamp(publish.payload, tail)?;
            if !frame.is_retained()
                || stamp.stream != round
                || publish.topic != topic(stamp.number).as_bytes()
            {
                return Err(Fault::Wrong("not the retained message that was set last"));
            }
            match seen.get_mut(stamp.number as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(Fault::OutOfTurn {
                        due: count,
                        came: stamp.number,
                    });
                }
            }
            missing -= 1;
            Ok(())
        });
        match received {
            Ok(Received::Something) => {}
            Err(error) => return Err(error),
            // A blocking read ends without bytes at its time limit.
            Ok(_) => return Err(Fault::Stalled { missing }),
        }
    }
    Ok(receiver
        .send(&frames::DISCONNECT)
        .and_then(|()| receiver.flush().map(drop))?)
}
