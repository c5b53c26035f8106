use super::*;

const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;
const OK: ReasonCode = ReasonCode::Success;

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn publish<'a>(value: u16, message: &'a &'static str, qos: QoS) -> Resend<'a, &'static str> {
    Resend::Publish {
        id: id(value),
        message,
        qos,
    }
}

#[test]
fn qos1_is_over_with_puback() {
    let mut outgoing = Outgoing::new(10);
    assert_eq!(outgoing.start("a", QOS1), Ok(id(1)));
    assert_eq!(outgoing.on_pubrec(id(1), OK), Err(AckError::WrongState));
    assert_eq!(outgoing.on_pubcomp(id(1)), Err(AckError::WrongState));
    assert_eq!(
        outgoing.on_puback(id(2), OK),
        Err(AckError::UnknownPacketId)
    );
    assert_eq!(outgoing.on_puback(id(1), OK), Ok("a"));
    assert_eq!(
        outgoing.on_puback(id(1), OK),
        Err(AckError::UnknownPacketId)
    );
    assert!(outgoing.is_empty());
    assert_eq!(outgoing.start("b", QOS1), Ok(id(2)));
    assert_eq!(
        outgoing.on_puback(id(2), ReasonCode::QuotaExceeded),
        Ok("b")
    );
}

#[test]
fn qos2_is_over_with_pubcomp() {
    let mut outgoing = Outgoing::new(10);
    assert_eq!(outgoing.start("a", QOS2), Ok(id(1)));
    assert_eq!(outgoing.on_puback(id(1), OK), Err(AckError::WrongState));
    assert_eq!(outgoing.on_pubcomp(id(1)), Err(AckError::WrongState));
    assert_eq!(outgoing.on_pubrec(id(1), OK), Ok(Next::Release));
    assert_eq!(outgoing.on_pubrec(id(1), OK), Ok(Next::Release));
    let refused = outgoing.on_pubrec(id(1), ReasonCode::QuotaExceeded);
    assert_eq!(refused, Err(AckError::WrongState));
    assert_eq!(outgoing.on_puback(id(1), OK), Err(AckError::WrongState));
    assert_eq!(outgoing.len(), 1);
    assert_eq!(outgoing.on_pubcomp(id(1)), Ok("a"));
    assert_eq!(outgoing.on_pubcomp(id(1)), Err(AckError::UnknownPacketId));
}

/// [MQTT-4.3.3-4]
#[test]
fn qos2_is_over_when_pubrec_refuses_it() {
    let mut outgoing = Outgoing::new(1);
    assert_eq!(outgoing.start("a", QOS2), Ok(id(1)));
    let refused = outgoing.on_pubrec(id(1), ReasonCode::NotAuthorized);
    assert_eq!(refused, Ok(Next::Completed("a")));
    assert!(outgoing.has_room());
    assert_eq!(outgoing.on_pubcomp(id(1)), Err(AckError::UnknownPacketId));
}

/// [MQTT-3.3.4-7], [MQTT-3.3.4-9], [MQTT-4.9.0-2]
#[test]
fn the_window_is_held_until_the_flow_is_over() {
    let mut outgoing = Outgoing::new(2);
    assert_eq!(outgoing.start("a", QOS1), Ok(id(1)));
    assert_eq!(outgoing.start("b", QOS2), Ok(id(2)));
    assert_eq!(outgoing.start("c", QOS1), Err(WindowFull("c")));
    assert_eq!(outgoing.on_pubrec(id(2), OK), Ok(Next::Release));
    assert!(!outgoing.has_room());
    assert_eq!(outgoing.on_puback(id(1), OK), Ok("a"));
    assert_eq!(outgoing.start("c", QOS1), Ok(id(3)));
    assert!(!outgoing.has_room());
    assert_eq!(outgoing.on_pubcomp(id(2)), Ok("b"));
    assert!(outgoing.has_room());
    outgoing.set_window(1);
    assert!(!outgoing.has_room());
    assert!(!Outgoing::<()>::new(0).has_room());
}

/// [MQTT-4.4.0-1], [MQTT-4.6.0-1]
#[test]
fn after_a_reconnect_everything_comes_again_in_order() {
    let mut outgoing = Outgoing::new(10);
    for (message, qos) in [("a", QOS1), ("b", QOS2), ("c", QOS2), ("d", QOS1)] {
        outgoing.start(message, qos).unwrap();
    }
    assert_eq!(outgoing.on_pubrec(id(2), OK), Ok(Next::Release));
    assert_eq!(outgoing.on_puback(id(1), OK), Ok("a"));
    let expected = [
        Resend::Pubrel { id: id(2) },
        publish(3, &"c", QOS2),
        publish(4, &"d", QOS1),
    ];
    assert_eq!(outgoing.resume().collect::<Vec<_>>(), expected);
    assert!(!outgoing.has_resends());
    assert_eq!(outgoing.next_resend(), None);

    outgoing.on_disconnected();
    assert!(!outgoing.has_room());
    for packet in expected {
        assert_eq!(outgoing.next_resend(), Some(packet));
    }
    assert_eq!(outgoing.next_resend(), None);
    assert!(outgoing.has_room());
    assert_eq!(outgoing.start("e", QOS1), Ok(id(5)));
}

#[test]
fn what_is_sent_again_keeps_to_the_new_window() {
    let mut outgoing = Outgoing::new(10);
    for message in ["a", "b", "c", "d"] {
        outgoing.start(message, QOS1).unwrap();
    }
    outgoing.on_disconnected();
    outgoing.set_window(1);
    assert_eq!(outgoing.next_resend(), Some(publish(1, &"a", QOS1)));
    assert_eq!(outgoing.next_resend(), None);
    // An acknowledgement for one that was not sent again frees no window.
    assert_eq!(outgoing.on_puback(id(2), OK), Ok("b"));
    assert_eq!(outgoing.next_resend(), None);
    assert_eq!(outgoing.on_puback(id(1), OK), Ok("a"));
    assert_eq!(outgoing.next_resend(), Some(publish(3, &"c", QOS1)));
    assert_eq!(outgoing.on_puback(id(3), OK), Ok("c"));
    assert!(outgoing.has_resends());
    assert_eq!(outgoing.start("e", QOS1), Err(WindowFull("e")));
    assert_eq!(outgoing.next_resend(), Some(publish(4, &"d", QOS1)));
    assert!(!outgoing.has_resends());
    assert_eq!(outgoing.on_puback(id(4), OK), Ok("d"));
    assert_eq!(outgoing.start("e", QOS1), Ok(id(5)));
}

#[test]
fn a_stored_session_is_restored() {
    let mut before = Outgoing::new(10);
    for (message, qos) in [("a", QOS1), ("b", QOS2), ("c", QOS2)] {
        before.start(message, qos).unwrap();
    }
    assert_eq!(before.on_pubrec(id(2), OK), Ok(Next::Release));
    let mut after = Outgoing::new(10);
    for flow in before.inflight() {
        let restored = after.restore(Inflight {
            id: flow.id,
            message: *flow.message,
            qos: flow.qos,
            released: flow.released,
        });
        assert_eq!(restored, Ok(()));
    }
    let twice = Inflight {
        id: id(2),
        message: "x",
        qos: QOS1,
        released: false,
    };
    assert_eq!(after.restore(twice), Err(twice));
    assert!(before.resume().eq(after.resume()));
    assert_eq!(after.next_resend(), Some(publish(1, &"a", QOS1)));
    assert_eq!(after.next_resend(), Some(Resend::Pubrel { id: id(2) }));
    assert_eq!(after.next_resend(), Some(publish(3, &"c", QOS2)));
    assert_eq!(after.start("d", QOS1), Ok(id(4)));
    assert_eq!(after.message(id(4)), Some(&"d"));
}

#[test]
fn draining_takes_every_message_in_order() {
    let mut outgoing = Outgoing::new(10);
    for (message, qos) in [("a", QOS2), ("b", QOS1), ("c", QOS2)] {
        outgoing.start(message, qos).unwrap();
    }
    let subscribe = outgoing.reserve_id().unwrap();
    assert_eq!(outgoing.on_pubrec(id(1), OK), Ok(Next::Release));
    let drained: Vec<_> = outgoing
        .drain()
        .map(|flow| (flow.message, flow.qos, flow.released))
        .collect();
    assert_eq!(
        drained,
        [("a", QOS2, true), ("b", QOS1, false), ("c", QOS2, false)]
    );
    assert!(outgoing.is_empty());
    assert!(outgoing.release_id(subscribe));
}

/// [MQTT-3.1.2-25]
#[test]
fn a_discarded_message_frees_the_window_and_is_not_sent_again() {
    let mut outgoing = Outgoing::new(2);
    for message in ["a", "b"] {
        outgoing.start(message, QOS2).unwrap();
    }
    outgoing.on_disconnected();
    assert_eq!(outgoing.next_resend(), Some(publish(1, &"a", QOS2)));
    assert_eq!(outgoing.discard(id(1)), Some("a"));
    assert_eq!(outgoing.discard(id(1)), None);
    assert_eq!(outgoing.discard(id(2)), Some("b"));
    assert!(!outgoing.has_resends());
    assert!(outgoing.has_room() && outgoing.is_empty());
}

#[test]
fn identifiers_of_subscribe_are_no_part_of_the_window() {
    let mut outgoing = Outgoing::new(1);
    let subscribe = outgoing.reserve_id().unwrap();
    assert_eq!(outgoing.start("a", QOS1), Ok(id(2)));
    assert_eq!(outgoing.len(), 1);
    assert_eq!(
        outgoing.on_puback(subscribe, OK),
        Err(AckError::UnknownPacketId)
    );
    assert_eq!(
        outgoing.on_pubrec(subscribe, OK),
        Err(AckError::UnknownPacketId)
    );
    assert!(!outgoing.release_id(id(2)));
    assert!(outgoing.release_id(subscribe));
    assert!(!outgoing.release_id(subscribe));
    outgoing.reserve_id().unwrap();
    outgoing.on_disconnected();
    assert_eq!(outgoing.next_resend(), Some(publish(2, &"a", QOS1)));
    assert_eq!(outgoing.next_resend(), None);
    assert_eq!(outgoing.on_puback(id(2), OK), Ok("a"));
    assert!(outgoing.is_empty());
}

#[test]
fn an_unused_one_is_small() {
    assert!(size_of::<Outgoing<std::sync::Arc<()>>>() <= 64);
}
