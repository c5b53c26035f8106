//! Runs scenarios: the random steps, the stops at every write, and what comes after them.

use std::time::Instant;

use super::check;
use super::client::{Client, Connecting, Life};
use super::model::{Model, Published, WillState, payload};
use super::random::Random;
use super::scenario::{Profile, Scenario, TOPICS};
use super::world::{Moment, Services, Setting, Stopped, World};
use crate::broker::router::command::SessionExpiry;
use crate::proto::QoS;
use crate::store::{Failure, MemoryState};

/// Random steps of a scenario.
const STEPS: usize = 400;

/// Runs scenarios.
pub(super) struct Simulation {
    services: Services,
}

/// What came of scenarios.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) positions: u64,
    pub(super) stops: u64,
    pub(super) failures: u64,
    pub(super) messages: u64,
}

impl Outcome {
    pub(super) fn add(&mut self, other: Self) {
        self.positions += other.positions;
        self.stops += other.stops;
        self.failures += other.failures;
        self.messages += other.messages;
    }
}

/// A write that fails.
#[derive(Debug, Clone, Copy)]
struct Planned {
    at: u64,
    kind: Failure,
    times: u64,
}

impl Simulation {
    #[expect(clippy::disallowed_methods, reason = "only a point of reference")]
    pub(super) fn new() -> Self {
        let services = Services::new(Instant::now());
        Self { services }
    }

    /// Runs the scenario of a seed with all its stops and failures.
    ///
    /// # Errors
    /// What went wrong, in the shortest beginning of the scenario in which it does, and what happened until then.
    pub(super) fn run(&self, seed: u64) -> Result<Outcome, String> {
        let setting = Setting::new(Scenario::new(seed, STEPS), &self.services);
        let run = |setting: &Setting, planned: Option<Planned>| {
            let result = self.run_one(setting, planned, false);
            result.map_err(|first| {
                let shortest = (8..=STEPS).step_by(8).find_map(|steps| {
                    let setting = Setting::new(Scenario::new(seed, steps), &self.services);
                    self.run_one(&setting, planned, false).err()?;
                    self.run_one(&setting, planned, true).err()
                });
                let report = shortest.unwrap_or_default();
                format!("{report}\n{planned:?}\nseed {seed}, in {STEPS} steps: {first}")
            })
        };
        let mut outcome = run(&setting, None)?;
        for at in 1..=outcome.positions {
            let mut random = Random::new(seed ^ (at << 32));
            let kind = *random.choose(&[
                Failure::Full,
                Failure::Write,
                Failure::WriteAfterwards,
                Failure::Sync,
            ]);
            let times = 1 + random.below(3) as u64;
            let failed = run(&setting, Some(Planned { at, kind, times }))?;
            outcome.failures += 1;
            outcome.stops += failed.stops;
        }
        Ok(outcome)
    }

    /// Runs a scenario once. The machine stops at every write, or, where a write fails, there and once more.
    fn run_one(
        &self,
        setting: &Setting,
        planned: Option<Planned>,
        traced: bool,
    ) -> Result<Outcome, String> {
        let scenario = &setting.scenario;
        let mut stops = 0;
        let mut seen = planned.map(|planned| Random::new(scenario.seed ^ planned.at));
        let mut on_write = |stopped: Stopped| {
            // Every one without a failure; with one, that one and a few after it.
            let wanted = match (&mut seen, planned) {
                (Some(random), Some(planned)) => {
                    stopped.moment == Moment::Failed
                        || (stopped.position >= planned.at && random.once_in(12))
                }
                _ => true,
            };
            if !wanted {
                return None;
            }
            stops += 1;
            stop_and_restart(setting, stopped, 0)
        };
        let clients = scenario.clients.iter().cloned().enumerate();
        let clients = clients
            .map(|(index, profile)| Client::new(index, profile))
            .collect();
        let random = Random::new(scenario.seed.wrapping_mul(0x9E37_79B9).wrapping_add(1));
        let model = Model::new(traced);
        let mut world = World::start(setting, MemoryState::default(), clients, model, random);
        if let Some(Planned { at, kind, times }) = planned {
            (at..at + times).for_each(|nth| world.store.fail_at(nth, kind));
        }
        world.on_write = Some(&mut on_write);
        for _ in 0..scenario.steps {
            if world.model.violation.is_some() || world.is_dead {
                break;
            }
            step(&mut world);
        }
        let mut random = world.random.fork(99);
        let positions = world.position;
        if world.model.violation.is_none() {
            if world.is_dead || random.once_in(3) {
                let stopped = world.stopped(Moment::Failed);
                world.model.violation = stop_and_restart(setting, stopped, 1);
            } else if random.once_in(2) {
                world.on_write = None;
                world.shut_down();
                let stopped = world.stopped(Moment::Applied);
                world.model.violation = stop_and_restart(setting, stopped, 1);
            } else {
                world.on_write = None;
                finish(&mut world);
                if world.is_dead {
                    world.model.violation = None;
                    let stopped = world.stopped(Moment::Failed);
                    world.model.violation = stop_and_restart(setting, stopped, 1);
                }
            }
        }
        let messages = world.model.messages.len() as u64;
        if let Some(violation) = world.model.violation.take() {
            let trace = world.model.trace();
            let separator = if violation.contains('\n') { "" } else { trace };
            return Err(format!("{separator}{violation}\n{scenario:?}"));
        }
        drop(world);
        Ok(Outcome {
            positions,
            stops,
            failures: 0,
            messages,
        })
    }
}

/// Starts the machine again, and looks at what is there. Now and then it stops once more on its way.
fn stop_and_restart(setting: &Setting, stopped: Stopped, depth: u32) -> Option<String> {
    let (position, moment) = (stopped.position, stopped.moment);
    let mut again = stopped.random.fork(7);
    let mut stop_at = (depth < 2 && again.once_in(4)).then(|| 1 + again.below(6) as u64);
    let mut on_write = |stopped: Stopped| {
        if stop_at.is_some_and(|at| stopped.position >= at) && again.once_in(2) {
            stop_at = None;
            return stop_and_restart(setting, stopped, depth + 1);
        }
        None
    };
    let mut world = stopped.restart(setting);
    world.on_write = Some(&mut on_write);
    finish(&mut world);
    let violation = world.model.violation.take()?;
    let trace = world.model.trace();
    let trace = if violation.contains("===") { "" } else { trace };
    Some(format!(
        "{trace}{violation}\nafter write {position}, {moment:?}"
    ))
}

/// One random step of a scenario.
fn step(world: &mut World<'_>) {
    match world.random.below(100) {
        0..42 => act(world),
        42..64 => {
            let client = world.random.below(world.clients.len());
            world.read(client);
        }
        64..84 => drop(world.route()),
        84..95 => drop(world.work_on_store()),
        95..98 => drop(world.answer_read()),
        _ => {
            let long = world.random.once_in(5);
            let by = world.random.seconds(if long { 30 } else { 4 });
            world.advance(by);
        }
    }
}

/// A client does something.
fn act(world: &mut World<'_>) {
    let index = world.random.below(world.clients.len());
    let client = &world.clients[index];
    match client.life {
        Life::Away => {
            let connecting = how_to_connect(world, index);
            world.connect(index, connecting);
        }
        Life::Connecting(_) => {
            if world.random.once_in(20) {
                world.cut(index);
            }
        }
        Life::Connected(_) => match world.random.below(100) {
            0..42 if client.profile.publishes => publish(world, index),
            0..62 => world.send(index),
            62..75 => {
                let at = world.random.below(client.profile.filters.len());
                let wants_retained = !world.random.once_in(3);
                world.clients[index].subscribe(at, wants_retained, &mut world.model);
            }
            75..80 => {
                let filter = world.random.choose(&client.profile.filters).0;
                world.clients[index].unsubscribe(filter, &mut world.model);
            }
            80..86 => world.cut(index),
            86..89 => {
                let ends = client.profile.has_properties
                    && client.keeps_session()
                    && world.random.once_in(3);
                world.disconnect(index, ends);
            }
            _ => world.send(index),
        },
    }
}

fn how_to_connect(world: &mut World<'_>, index: usize) -> Connecting {
    let random = &mut world.random;
    let client = &world.clients[index];
    let visits = random.once_in(20);
    let keeps = client.profile.is_persistent() && !visits;
    let clean_start = !keeps || client.must_clean || random.once_in(15);
    let (will, will_delay) = if client.profile.wills && random.once_in(2) {
        let delays: &[u64] = if client.profile.has_properties {
            &[0, 0, 2_000, 10_000]
        } else {
            &[0]
        };
        let delay = *random.choose(delays);
        let qos = *random.choose(&QOS);
        let topic = *random.choose(&TOPICS);
        let will = new_message(world, index, topic, qos);
        world.model.messages[will].will = WillState::Pending;
        (Some(will), delay)
    } else {
        (None, 0)
    };
    let client = &world.clients[index];
    Connecting {
        clean_start,
        expiry: if keeps {
            client.profile.expiry
        } else {
            SessionExpiry::AtDisconnect
        },
        will,
        will_delay,
    }
}

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn new_message(world: &mut World<'_>, publisher: usize, topic: &'static str, qos: QoS) -> usize {
    let first_sent = world.model.tick();
    let now = world.model.now;
    world.model.messages.push(Published {
        publisher,
        topic,
        qos,
        retain: false,
        is_empty: false,
        expiry: None,
        first_sent,
        first_sent_at: now,
        last_taken_at: now,
        sends: 1,
        may_double: false,
        acked: None,
        will: WillState::None,
    });
    world.model.messages.len() - 1
}

fn publish(world: &mut World<'_>, index: usize) {
    let limit = usize::from(world.setting.scenario.receive_maximum);
    if world.clients[index].outgoing.len() >= limit.min(20) {
        return world.send(index);
    }
    let random = &mut world.random;
    let topic = *random.choose(&TOPICS);
    let qos = QOS[[0, 1, 1, 2, 2][random.below(5)]];
    let retain = Model::may_retain(index, topic) && random.once_in(2);
    // A QoS 1 message that is sent again would replace a newer one of QoS 2: these two have no order.
    let qos = match qos {
        QoS::AtLeastOnce | QoS::ExactlyOnce if retain => QOS[1 + index % 2],
        qos => qos,
    };
    let is_empty = retain && random.once_in(4);
    let padding = random.below(30);
    let has_properties = world.clients[index].profile.has_properties;
    let expiry = has_properties && random.once_in(6);
    let seconds = 1 + random.below(15) as u64;
    let message = new_message(world, index, topic, qos);
    let published = &mut world.model.messages[message];
    published.retain = retain;
    published.is_empty = is_empty;
    published.expiry = expiry.then_some(seconds * 1000);
    let payload = if is_empty {
        String::new()
    } else {
        payload(message, padding)
    };
    world.clients[index].publish(message, payload, &mut world.model);
}

/// Brings all clients back, lets everything come to rest, looks with a client of its own, and judges.
fn finish(world: &mut World<'_>) {
    settle(world);
    let probe = world.clients.len();
    world.add_client(Client::new(probe, Profile::probe()));
    settle(world);
    world.clients[probe].subscribe(0, true, &mut world.model);
    settle(world);
    for topic in TOPICS {
        let message = new_message(world, probe, topic, QoS::AtLeastOnce);
        world.clients[probe].publish(message, payload(message, 0), &mut world.model);
    }
    settle(world);
    if world.model.violation.is_none() && !world.is_dead {
        check::final_state(world, probe);
    }
}

/// Lets everything move until nothing does.
fn settle(world: &mut World<'_>) {
    for _ in 0..ROUNDS {
        if world.model.violation.is_some() || world.is_dead {
            return;
        }
        for index in 0..world.clients.len() {
            if matches!(world.clients[index].life, Life::Away) {
                let client = &world.clients[index];
                let connecting = Connecting {
                    clean_start: client.must_clean || !client.profile.is_persistent(),
                    expiry: client.profile.expiry,
                    will: None,
                    will_delay: 0,
                };
                if world.random.once_in(2) {
                    world.connect(index, connecting);
                }
                continue;
            }
            if !world.random.once_in(4) {
                world.send(index);
            }
            if !world.random.once_in(4) {
                world.read(index);
            }
        }
        world.route();
        world.route();
        world.work_on_store();
        world.answer_read();
        let all_back = world.clients.iter().all(Client::is_connected);
        if all_back && world.is_quiet() {
            return;
        }
    }
    let lives: Vec<_> = world
        .clients
        .iter()
        .map(|client| format!("{:?}", client.life))
        .collect();
    world
        .model
        .fail(|| format!("it does not come to rest: {lives:?}"));
}

/// More than any scenario takes to come to rest.
const ROUNDS: usize = 5_000;
