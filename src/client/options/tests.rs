use super::*;

fn with_topics() -> ConnectOptions {
    let qos1 = TopicDefaults {
        qos: Some(QoS::AtLeastOnce),
        retain: None,
    };
    let qos2_retained = TopicDefaults {
        qos: Some(QoS::ExactlyOnce),
        retain: Some(true),
    };
    ConnectOptions::new()
        .default_retain(true)
        .topic_defaults("/test", qos1)
        .topic_defaults("/some_topic", qos2_retained)
}

#[test]
fn argument_wins_over_topic_and_topic_over_default() {
    let options = with_topics();
    let unset = PublishOptions::new();
    let explicit = PublishOptions::new().qos(QoS::AtMostOnce).retain(false);
    assert_eq!(options.resolve("/test", &unset), (QoS::AtLeastOnce, true));
    assert_eq!(
        options.resolve("/some_topic", &unset),
        (QoS::ExactlyOnce, true)
    );
    assert_eq!(options.resolve("other", &unset), (QoS::AtMostOnce, true));
    // DEC-13: an explicit 0 or false wins too.
    assert_eq!(
        options.resolve("/some_topic", &explicit),
        (QoS::AtMostOnce, false)
    );
}

#[test]
fn ping_delay_must_be_less_than_keep_alive() {
    let options = ConnectOptions::new()
        .keep_alive(Duration::from_secs(5))
        .ping_delay(Duration::from_secs(5));
    assert!(matches!(
        options.check(),
        Err(ClientError::InvalidOption(_))
    ));
    assert!(options.keep_alive(Duration::ZERO).check().is_ok());
}

#[test]
fn password_needs_a_user_name_before_5() {
    let options = ConnectOptions::new().password("secret");
    assert!(options.check().is_ok());
    let older = options.version(ProtocolVersion::V311);
    assert!(older.check().is_err());
    assert!(older.user_name("me").check().is_ok());
}

#[test]
fn empty_client_id_needs_a_clean_session() {
    let options = ConnectOptions::new().client_id("");
    assert!(options.check().is_ok());
    let older = options.clone().version(ProtocolVersion::V311);
    assert!(older.check().is_ok());
    let kept = options.clone().clean_start(false);
    assert_eq!(kept.version_after(ProtocolVersion::V5), None);
    assert!(older.clean_start(false).check().is_err());
    assert!(options.version(ProtocolVersion::V31).check().is_err());
}

#[test]
fn a_chosen_version_is_never_changed() {
    let options = ConnectOptions::new();
    assert_eq!(options.first_version(), ProtocolVersion::V5);
    let next = options.version_after(ProtocolVersion::V5);
    assert_eq!(next, Some(ProtocolVersion::V311));
    assert_eq!(options.version_after(ProtocolVersion::V311), None);
    for version in ProtocolVersion::ALL {
        let chosen = options.clone().version(version);
        assert_eq!(chosen.first_version(), version);
        assert_eq!(chosen.version_after(version), None);
    }
}

#[test]
fn debug_hides_the_password() {
    let options = ConnectOptions::new().credentials("me", "secret");
    let text = format!("{options:?}");
    assert!(text.contains("***") && !text.contains("secret"), "{text}");
}

#[test]
fn durations_become_the_seconds_of_the_wire() {
    assert_eq!(short_seconds(Duration::from_millis(1)), 1);
    assert_eq!(short_seconds(Duration::ZERO), 0);
    assert_eq!(short_seconds(Duration::MAX), u16::MAX);
    assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
}
