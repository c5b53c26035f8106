//! What must hold: of the store after each write, and of everything in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Client, Era};
use super::model::{Model, WillState};
use super::scenario::TOPICS;
use super::world::World;
use crate::proto::QoS;
use crate::store::{ChangeSet, EntryChange, EntryState, MemoryState, SessionKey};

/// Of the store, after `set` was applied to it.
pub(super) fn store_invariants(
    state: &MemoryState,
    set: &ChangeSet,
    highest: &mut BTreeMap<SessionKey, u64>,
    model: &mut Model,
) {
    let mut unused: BTreeSet<_> = state.messages.keys().copied().collect();
    let mut ids = BTreeSet::new();
    for ((key, position), entry) in &state.entries {
        if !state.sessions.contains_key(key) {
            model.fail(|| format!("store: {position:?} belongs to no session"));
        }
        if let Some(message) = entry.message {
            unused.remove(&message);
            if !state.messages.contains_key(&message) {
                model.fail(|| format!("store: {message:?} of {key:?} {position:?} is not there"));
            }
        } else if !matches!(entry.state, EntryState::Released(_)) {
            model.fail(|| format!("store: {key:?} {position:?} has no message"));
        }
        if let EntryState::Sent(id) | EntryState::Released(id) = entry.state
            && !ids.insert((*key, id))
        {
            model.fail(|| format!("store: {key:?} has two messages under {id}"));
        }
    }
    if let Some(message) = unused.first() {
        model.fail(|| format!("store: no entry refers to {message:?}"));
    }
    for (key, position, change) in set.entries() {
        if let EntryChange::Put(_) = change
            && let Some(before) = highest.insert(key, position.0)
            && before > position.0
        {
            model.fail(|| format!("store: {key:?} has {position:?} after {before}"));
        }
    }
    let subscriptions = state.subscriptions.keys().map(|(key, _)| key);
    let incoming = state.incoming.keys().map(|(key, _)| key);
    for key in subscriptions.chain(incoming) {
        if !state.sessions.contains_key(key) {
            model.fail(|| format!("store: something belongs to {key:?}, which is not there"));
        }
    }
}

/// What a write changes, for who reads a trace.
pub(super) fn describe(set: &ChangeSet) -> String {
    let mut text = String::new();
    let mut add = |what: String| text.push_str(&format!("\n{:>18}{what}", ""));
    for key in set.ended_sessions() {
        add(format!("session {} ends", key.0));
    }
    for (key, record) in set.sessions() {
        let will = record.will.is_some();
        let (client, at) = (&record.client_id, record.disconnected_at);
        add(format!(
            "session {} = {client}, will {will}, away {at:?}",
            key.0
        ));
    }
    for (key, filter, record) in set.subscriptions() {
        let record = record.map(|record| &record.replay);
        add(format!("subscription {} {filter} = {record:?}", key.0));
    }
    for (key, id, is_there) in set.incoming() {
        add(format!("incoming {} {id} = {is_there}", key.0));
    }
    for (id, record) in set.messages() {
        let payload = record.map(|record| &record.message.payload);
        add(format!("message {} = {payload:?}", id.0));
    }
    for (key, position, change) in set.entries() {
        let change = match change {
            EntryChange::Put(record) => {
                let message = record.message.map(|id| id.0);
                format!("message {message:?} {:?} {:?}", record.qos, record.state)
            }
            other => format!("{other:?}"),
        };
        add(format!("entry {} {} = {change}", key.0, position.0));
    }
    for (topic, record) in set.retained() {
        let payload = record.map(|record| &record.message.message.payload);
        add(format!("retained {} = {payload:?}", topic.as_str()));
    }
    text
}

/// Of everything, when all clients are back and nothing moves any more. `probe`: the client that looked at what is
/// retained.
pub(super) fn final_state(world: &mut World<'_>, probe: usize) {
    let is_limited = world.setting.scenario.is_limited();
    let mut missing = Vec::new();
    for client in &world.clients {
        missing.extend(missing_at(client, &world.model));
        check_replays(client, &mut world.model);
    }
    missing.extend(missing_at_group(&world.clients, &world.model));
    let dropped = world.model.dropped + world.metrics.dropped_queue_full.value();
    if missing.len() as u64 > if is_limited { dropped } else { 0 } {
        world
            .model
            .fail(|| format!("lost: {missing:?}; dropped: {dropped}"));
    }
    let lost = world.metrics.dropped_lost.value();
    if lost > 0 {
        world
            .model
            .fail(|| format!("{lost} messages were not in the store"));
    }
    check_retained(&world.clients[probe], &mut world.model);
    check_leaks(&world.store.state(), &world.clients, &mut world.model);
}

/// Messages that this client should have: they were acknowledged while it was subscribed.
fn missing_at(client: &Client, model: &Model) -> Vec<String> {
    let mut missing = Vec::new();
    let got: BTreeSet<usize> = client.received.iter().map(|one| one.message).collect();
    for (index, message) in model.messages.iter().enumerate() {
        let Some(acked) = message.acked else { continue };
        if message.is_empty || got.contains(&index) || model.may_have_expired(index) {
            continue;
        }
        let is_due = |era: &&Era| {
            !era.is_shared()
                && !era.is_over
                && era.qos.min(message.qos) != QoS::AtMostOnce
                && era.is_certain(message.first_sent)
                && era.is_certain(acked)
                && era.matches(message.topic)
        };
        if let Some(era) = client.eras.iter().find(is_due)
            && client.keeps_session_or_probe()
        {
            missing.push(format!(
                "{index} for client{} at {}",
                client.index, era.filter
            ));
        }
    }
    missing
}

/// Messages that somebody of the shared subscription should have.
fn missing_at_group(clients: &[Client], model: &Model) -> Vec<String> {
    let eras = || {
        clients
            .iter()
            .flat_map(|client| &client.eras)
            .filter(|era| era.is_shared())
    };
    let mut missing = Vec::new();
    for (index, message) in model.messages.iter().enumerate() {
        let Some(acked) = message.acked else { continue };
        let got = clients.iter().any(|client| {
            let mut received = client.received.iter();
            client.profile.is_worker() && received.any(|one| one.message == index)
        });
        if got
            || message.is_empty
            || message.qos == QoS::AtMostOnce
            || model.may_have_expired(index)
        {
            continue;
        }
        let stays = |era: &Era| {
            era.matches(message.topic)
                && era.is_certain(message.first_sent)
                && era.is_certain(acked)
        };
        let has_member = eras().any(|era| stays(era) && !era.is_over && era.leaving.is_none());
        // What a member had been sent at QoS 2 ends with it, and so does what it has when all have left.
        let somebody_left = eras().any(|era| {
            era.leaving.is_some_and(|at| at > message.first_sent)
                || era.is_over
                || !era.is_settled()
        });
        if has_member && !somebody_left {
            missing.push(format!("{index} for the shared subscription"));
        }
    }
    missing
}

/// Whoever subscribed has the messages that were retained then, or newer ones.
fn check_replays(client: &Client, model: &mut Model) {
    if !client.keeps_session_or_probe() {
        return;
    }
    for era in &client.eras {
        let is_settled = era.last_granted > Some(era.last_asked);
        let is_due = era.wants_retained && is_settled && era.leaving.is_none() && !era.is_over;
        if !is_due || era.is_shared() || era.qos == QoS::AtMostOnce {
            continue;
        }
        for topic in TOPICS.iter().filter(|topic| era.matches(topic)) {
            let Some(sure) = model.retained_for_sure(topic, era.last_asked) else {
                continue;
            };
            let candidates: Vec<usize> = model.retained(topic).filter(|one| *one >= sure).collect();
            let may_be_none = candidates.iter().any(|one| {
                let message = &model.messages[*one];
                message.is_empty || message.qos == QoS::AtMostOnce || message.expiry.is_some()
            });
            let got = client
                .received
                .iter()
                .any(|one| one.step > era.last_asked && candidates.contains(&one.message));
            if !may_be_none && !got {
                let (who, filter) = (client.index, era.filter);
                model.fail(|| {
                    format!("client{who} subscribed to {filter} and did not get retained {sure} on {topic}")
                });
            }
        }
    }
}

/// The probe found of each topic what was acknowledged last, or something newer.
fn check_retained(probe: &Client, model: &mut Model) {
    for topic in TOPICS {
        let sure = model.retained_for_sure(topic, model.step + 1);
        let mut possible: Vec<_> = model
            .retained(topic)
            .filter(|one| Some(*one) >= sure)
            .collect();
        let may_be_none = sure.is_none()
            || possible.iter().any(|one| {
                let message = &model.messages[*one];
                message.is_empty || model.may_have_expired(*one)
            });
        possible.retain(|one| !model.messages[*one].is_empty && !model.has_expired(*one));
        let mut received = probe.received.iter();
        let found = received.find(|one| one.retain && model.messages[one.message].topic == topic);
        match found {
            None if may_be_none => {}
            Some(one) if possible.contains(&one.message) => {}
            found => {
                let found = found.map(|one| one.message);
                model.fail(|| {
                    format!(
                        "retained on {topic}: {found:?}, possible: {possible:?}, for sure: {sure:?}"
                    )
                });
            }
        }
    }
}

/// Nothing stays in the store of what was delivered and acknowledged, and no session but those of the clients.
fn check_leaks(state: &MemoryState, clients: &[Client], model: &mut Model) {
    if !state.entries.is_empty() || !state.messages.is_empty() || !state.incoming.is_empty() {
        model.fail(|| {
            let MemoryState {
                sessions,
                entries,
                messages,
                incoming,
                ..
            } = state;
            format!("left in the store: {entries:?} {messages:?} {incoming:?} of {sessions:?}")
        });
    }
    let mut stored: Vec<_> = state
        .sessions
        .values()
        .map(|one| one.client_id.to_string())
        .collect();
    stored.sort();
    let kept = clients.iter().filter(|client| client.keeps_session());
    let mut kept: Vec<_> = kept.map(Client::name).collect();
    kept.sort();
    if stored != kept {
        model.fail(|| format!("stored sessions {stored:?}, those of the clients {kept:?}"));
    }
    let wills = model
        .messages
        .iter()
        .filter(|one| one.will == WillState::Pending)
        .count();
    let stored = state
        .sessions
        .values()
        .filter(|one| one.will.is_some())
        .count();
    if stored > wills {
        model.fail(|| format!("{stored} wills are stored, {wills} connections have one"));
    }
}

impl Client {
    /// It was promised something that holds until now.
    fn keeps_session_or_probe(&self) -> bool {
        self.is_connected()
    }
}

impl Era {
    /// It is clear whether it is there.
    fn is_settled(&self) -> bool {
        self.granted.is_some() || self.left.is_some()
    }
}
