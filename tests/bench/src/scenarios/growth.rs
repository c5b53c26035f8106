//! The same traffic beside more and more of everything that a broker keeps.

use super::Bench;
use super::measure::{Measured, traffic};
use super::offline::leave;
use super::retained;
use super::shapes::pair;
use crate::connection::Connection;
use crate::fault::Fault;
use crate::frames;

/// One result alone, then one beside each number of each kind.
pub(super) fn growth(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    // Thirteen measurements.
    let bench = &Bench {
        time: bench.time / 2,
        ..*bench
    };
    let mut measured = beside_nothing_more(bench)?;
    measured.extend(beside_connections(bench)?);
    measured.extend(beside_sessions(bench)?);
    measured.extend(beside_filters(bench)?);
    measured.extend(beside_retained(bench)?);
    Ok(measured)
}

fn beside_nothing_more(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    traffic(bench, bench.plain, pair(0, 64))
}

/// From `first` on ten times as many twice, but few in the smoke test.
fn sizes(bench: &Bench<'_>, first: usize) -> [usize; 3] {
    if bench.is_smoke {
        [1, 10, 20]
    } else {
        [first, first * 10, first * 100]
    }
}

fn beside_connections(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let mut crowd = Vec::new();
    let mut measured = Vec::new();
    for size in sizes(bench, 10) {
        while crowd.len() < size {
            let number = crowd.len();
            let mut client = Connection::connect(bench.plain, &format!("crowd{number}"), true)?;
            client.subscribe(&[format!("crowd/{number}")], 0)?;
            crowd.push(client);
        }
        measured.extend(beside_nothing_more(bench)?);
    }
    Ok(measured)
}

fn beside_sessions(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let mut made = 0;
    let mut measured = Vec::new();
    for size in sizes(bench, 10) {
        for number in made..size {
            let mut client = Connection::connect(bench.plain, &format!("away{number}"), false)?;
            client.subscribe(&[format!("away/{number}")], 1)?;
            leave(client)?;
        }
        made = size;
        measured.extend(beside_nothing_more(bench)?);
    }
    for number in 0..made {
        leave(Connection::connect(
            bench.plain,
            &format!("away{number}"),
            true,
        )?)?;
    }
    Ok(measured)
}

/// Of ten clients.
fn beside_filters(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let connect = |number| Connection::connect(bench.plain, &format!("curious{number}"), true);
    let mut clients = (0..10).map(connect).collect::<Result<Vec<_>, Fault>>()?;
    let mut made = 0;
    let mut measured = Vec::new();
    for size in sizes(bench, 50) {
        for (index, client) in clients.iter_mut().enumerate() {
            let filter = |number: usize| match number % 2 {
                0 => format!("+/{index}/{number}"),
                _ => format!("wild/{index}/{number}/#"),
            };
            client.subscribe(&(made..size).map(filter).collect::<Vec<_>>(), 0)?;
        }
        made = size;
        measured.extend(beside_nothing_more(bench)?);
    }
    Ok(measured)
}

fn beside_retained(bench: &Bench<'_>) -> Result<Vec<Measured>, Fault> {
    let mut publisher = Connection::connect(bench.plain, "retainer", true)?;
    let tail = frames::tail(64);
    let mut made = 0;
    let mut measured = Vec::new();
    for size in sizes(bench, 500) {
        retained::set(&mut publisher, made..size as u64, 0, &tail)?;
        made = size as u64;
        measured.extend(beside_nothing_more(bench)?);
    }
    Ok(measured)
}
