//! A seeded simulation of the router with its store and its clients, checked against a reference model.
//!
//! ```text
//!   clients ──packets──► Router ──Commit──► GroupCommit ──ChangeSet──► MemoryStore
//!      ▲                   │                     │ releases
//!      └──────── sockets ──┴─────────────────────┘
//! ```
//!
//! No thread, no clock: a scenario is a sequence of random steps, all from one seed. At every write of the store the
//! machine stops three times, each time in a copy of everything: before the write, when it is applied and nothing that
//! waited for it has left, and in the middle of what leaves. In each copy a new router starts on what is durable, the
//! clients come back, send again what was not acknowledged and read all that there is; then the model says whether
//! something was lost, came twice, came late, or stayed behind. Then the scenario runs again, once for each of its writes,
//! with that write failing.
//!
//! A few scenarios run with the other unit tests. More of them, and one that failed:
//!
//! ```text
//! HBMQTT_SIMULATION=1000 cargo test --lib simulation -- --nocapture
//! HBMQTT_SIMULATION_SEED=17 cargo test --lib simulation -- --nocapture
//! ```

mod check;
mod client;
mod model;
mod random;
mod run;
mod scenario;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Outcome, Simulation};

/// How many scenarios run without a wish in the environment.
const FEW: u64 = 30;

#[test]
fn whenever_the_machine_stops_everything_promised_holds() {
    let wish = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match wish("HBMQTT_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..wish("HBMQTT_SIMULATION").unwrap_or(FEW),
    };
    let seeds_end = seeds.end;
    #[expect(clippy::disallowed_methods, reason = "says how long it took")]
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let results = std::thread::scope(|scope| {
        let run = || {
            let simulation = Simulation::new();
            let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            let seeds = seeds.take_while(|seed| *seed < seeds_end);
            seeds.map(|seed| simulation.run(seed)).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        let results = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        results.collect::<Vec<_>>()
    });
    let mut sum = Outcome::default();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(outcome) => sum.add(outcome),
            Err(report) => failed.push(report),
        }
    }
    println!(
        "seeds {seeds:?}: {} writes, {} stops of the machine, {} failed writes, {} messages, {:?}",
        sum.positions,
        sum.stops,
        sum.failures,
        sum.messages,
        began.elapsed()
    );
    assert!(
        failed.is_empty(),
        "{} failed\n{}",
        failed.len(),
        failed.join("\n----\n")
    );
}
