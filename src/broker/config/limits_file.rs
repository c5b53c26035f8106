//! The section `limits`.

use std::time::Duration;

use super::file::{SECOND, set};
use super::{Limits, MemoryLimit};
use crate::yaml::{Field, Section};

/// Reads the section. 0 becomes the largest number where it means "no limit".
pub(super) fn limits(section: Section<'_>) -> Limits {
    let mut limits = Limits::default();
    let above_zero = |field: &Field<'_>| field.duration(MILLISECOND..=Duration::MAX);
    let or_zero = |field: &Field<'_>| field.duration(Duration::ZERO..=Duration::MAX);
    // What Linux takes.
    let probing = |field: &Field<'_>| field.duration(SECOND..=Duration::from_secs(32_767));
    let probing_or_zero =
        |field: &Field<'_>| field.duration(Duration::ZERO..=Duration::from_secs(32_767));
    // The protocol's own maximum where it is a 16 bit number.
    let window = |field: &Field<'_>| match field.integer(0..=65_535)? {
        0 => Some(u16::MAX),
        number => Some(number),
    };
    let at_least_one = |field: &Field<'_>| field.integer(1..=i128::from(u32::MAX));

    set!(
        limits.connect_timeout,
        section.field("connect-timeout"),
        above_zero
    );
    set!(
        limits.max_half_open_connections,
        section.field("max-half-open-connections"),
        Field::limit
    );
    set!(
        limits.packet_timeout,
        section.field("packet-timeout"),
        above_zero
    );
    set!(
        limits.max_keepalive,
        section.field("max-keepalive"),
        keepalive
    );
    set!(
        limits.tcp_keepalive_idle,
        section.field("tcp-keepalive-idle"),
        probing_or_zero
    );
    set!(
        limits.tcp_keepalive_interval,
        section.field("tcp-keepalive-interval"),
        probing
    );
    set!(
        limits.tcp_keepalive_probes,
        section.field("tcp-keepalive-probes"),
        |field: &Field<'_>| field.integer(1..=127)
    );
    set!(
        limits.write_timeout,
        section.field("write-timeout"),
        above_zero
    );
    set!(
        limits.max_connections,
        section.field("max-connections"),
        |field: &Field<'_>| field.limit().map(Some)
    );
    set!(
        limits.max_connect_packet_size,
        section.field("max-connect-packet-size"),
        packet_size
    );
    set!(
        limits.max_packet_size,
        section.field("max-packet-size"),
        packet_size
    );
    set!(
        limits.max_payload_size,
        section.field("max-payload-size"),
        Field::bytes_limit
    );
    set!(
        limits.max_client_id_length,
        section.field("max-client-id-length"),
        Field::bytes_limit
    );
    set!(
        limits.max_username_length,
        section.field("max-username-length"),
        Field::bytes_limit
    );
    set!(
        limits.max_password_length,
        section.field("max-password-length"),
        Field::bytes_limit
    );
    set!(
        limits.max_topic_length,
        section.field("max-topic-length"),
        Field::bytes_limit
    );
    set!(
        limits.max_topic_levels,
        section.field("max-topic-levels"),
        Field::limit
    );
    set!(
        limits.max_properties_size,
        section.field("max-properties-size"),
        Field::bytes_limit
    );
    set!(
        limits.max_properties,
        section.field("max-properties"),
        Field::limit
    );
    set!(
        limits.max_filters,
        section.field("max-filters"),
        Field::limit
    );
    set!(
        limits.max_topic_alias,
        section.field("max-topic-alias"),
        |field: &Field<'_>| field.integer(0..=65_535)
    );
    set!(
        limits.receive_maximum,
        section.field("receive-maximum"),
        window
    );
    set!(
        limits.max_inflight_messages,
        section.field("max-inflight-messages"),
        window
    );
    set!(
        limits.max_inflight_bytes,
        section.field("max-inflight-bytes"),
        Field::bytes_limit
    );
    set!(
        limits.max_queued_messages,
        section.field("max-queued-messages"),
        Field::limit
    );
    set!(
        limits.max_queued_bytes,
        section.field("max-queued-bytes"),
        Field::bytes_limit
    );
    set!(
        limits.max_outbox_bytes,
        section.field("max-outbox-bytes"),
        Field::bytes_limit
    );
    set!(
        limits.max_subscriptions_per_session,
        section.field("max-subscriptions-per-session"),
        Field::limit
    );
    set!(
        limits.max_subscriptions,
        section.field("max-subscriptions"),
        Field::limit
    );
    set!(
        limits.max_retained_messages,
        section.field("max-retained-messages"),
        Field::limit
    );
    set!(
        limits.max_retained_bytes,
        section.field("max-retained-bytes"),
        Field::bytes_limit
    );
    set!(
        limits.max_sessions,
        section.field("max-sessions"),
        Field::limit
    );
    set!(
        limits.max_unwritten_bytes,
        section.field("max-unwritten-bytes"),
        Field::bytes_limit
    );
    set!(
        limits.max_memory,
        section.field("max-memory"),
        |field: &Field<'_>| {
            Some(match field.bytes()? {
                0 => MemoryLimit::Unlimited,
                bytes => MemoryLimit::Bytes(bytes),
            })
        }
    );
    set!(
        limits.max_password_checks,
        section.field("max-password-checks"),
        at_least_one
    );
    set!(
        limits.max_waiting_password_checks,
        section.field("max-waiting-password-checks"),
        Field::limit
    );
    set!(
        limits.auth_timeout,
        section.field("auth-timeout"),
        above_zero
    );
    set!(
        limits.password_cache,
        section.field("password-cache"),
        or_zero
    );
    set!(
        limits.max_failed_logins,
        section.field("max-failed-logins"),
        |field: &Field<'_>| field.integer(0..=i128::from(u32::MAX))
    );
    set!(
        limits.max_login_delay,
        section.field("max-login-delay"),
        or_zero
    );
    set!(
        limits.max_plugin_events,
        section.field("max-plugin-events"),
        |field: &Field<'_>| field.integer(1..=1_000_000)
    );
    section.finish();
    limits
}

/// Whole seconds; 0 means any Keep Alive.
fn keepalive(field: &Field<'_>) -> Option<Option<u16>> {
    let longest = Duration::from_secs(u16::MAX.into());
    let seconds = field.duration(Duration::ZERO..=longest)?.as_secs();
    let seconds = u16::try_from(seconds).ok()?;
    Some((seconds > 0).then_some(seconds))
}

/// The protocol has no larger packets than 256 MiB (MQTT 5.0 §1.5.5); 0 allows all of them.
fn packet_size(field: &Field<'_>) -> Option<usize> {
    match field.bytes()? {
        0 => Some(MAX_PACKET),
        size @ 64..=MAX_PACKET => Some(size),
        size => {
            field.problem(format!("{size} is not in the range 64 to {MAX_PACKET}"));
            None
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const MAX_PACKET: usize = 268_435_460;
