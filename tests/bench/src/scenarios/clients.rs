//! Connections themselves: many that come and go, many that stay and are silent.

use std::collections::HashMap;
use std::time::Duration;

use super::Bench;
use super::measure::{Measured, Meter};
use crate::clock::{now, rss_bytes};
use crate::connection::{Connection, Received, Scratch};
use crate::fault::Fault;
use crate::frames;
use crate::poller::Poller;

/// Clients that connect, subscribe and leave, 32 at once.
pub(super) fn connect(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    const AT_ONCE: usize = 32;
    let most = bench.count(20_000, 200);
    let mut poller = Poller::new()?;
    let (mut scratch, mut ready) = (Scratch::new(), Vec::new());
    let mut open: HashMap<usize, Connection> = HashMap::new();
    let meter = Meter::start(bench)?;
    let end = now() + bench.time;
    let (mut started, mut done) = (0, 0);
    while !open.is_empty() || (started < most && now() < end) {
        while open.len() < AT_ONCE && started < most && now() < end {
            let token = started as usize;
            let mut connection = Connection::dial(bench.plain)?;
            connection.socket.set_nonblocking(true)?;
            poller.add(&connection.socket, token)?;
            connection.send(&frames::connect(&format!("c{token}"), true))?;
            connection.flush()?;
            open.insert(token, connection);
            started += 1;
        }
        poller.wait(&mut ready, Duration::from_secs(10))?;
        if ready.is_empty() {
            return Err(Fault::Stalled {
                missing: open.len() as u64,
            });
        }
        for event in &ready {
            let Some(mut connection) = open.remove(&event.token) else {
                continue;
            };
            if has_subscribed(&mut connection, &mut scratch, event.token)? {
                done += 1;
            } else {
                open.insert(event.token, connection);
            }
        }
    }
    Ok(vec![meter.stop(done)?])
}

/// The next step of a client that connects and subscribes; whether it was the last.
fn has_subscribed(
    connection: &mut Connection,
    scratch: &mut Scratch,
    token: usize,
) -> Result<bool, Fault> {
    let (mut reply, mut is_done) = (Vec::new(), false);
    let received = connection.receive(scratch, |frame| {
        match (frame.first, frame.body) {
            (frames::CONNACK, [_, 0]) => reply = frames::subscribe(1, &[format!("c/{token}")], 0),
            (frames::SUBACK, [0, 1, 0]) => {
                reply = frames::DISCONNECT.to_vec();
                is_done = true;
            }
            _ => return Err(Fault::Wrong("a connection or subscription is refused")),
        }
        Ok(())
    })?;
    if received == Received::End {
        return Err(Fault::Wrong("the broker closed a connection"));
    }
    connection.send(&reply)?;
    connection.flush()?;
    Ok(is_done)
}

/// Clients that connect and stay silent.
pub(super) fn idle(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let count = bench.count(1_000, 50);
    // What the first connections bring along is not theirs.
    let first: Result<Vec<_>, Fault> = (0..10)
        .map(|n| Connection::connect(bench.plain, &format!("w{n}"), true))
        .collect();
    let first = first?;
    let before = bench.pid.map(rss_bytes).transpose()?;
    let meter = Meter::start(bench)?;
    let clients: Result<Vec<_>, Fault> = (0..count)
        .map(|n| Connection::connect(bench.plain, &format!("i{n}"), true))
        .collect();
    let clients = clients?;
    let mut measured = meter.stop(count)?;
    measured.bytes_each = measured
        .rss_bytes
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before) as f64 / count as f64);
    drop((first, clients));
    Ok(vec![measured])
}
