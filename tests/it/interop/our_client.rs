//! Our client library against a real mosquitto: floods, kept sessions, restarts. The transports are in `client`.

use hbmqtt::client::TlsOptions;
use hbmqtt::proto::ProtocolVersion;

use super::is_on;
use crate::client::rounds::{
    Order, comes_back, every_qos, floods, goes_on_with_its_session, options,
};
use crate::support::Broker;
use crate::support::certificates::Certificates;

/// Mosquitto drops what is beyond its queue, so that gets no limit.
const OPEN: &str = "allow_anonymous true\nmax_queued_messages 0";

#[test]
fn our_client_speaks_every_version_with_mosquitto() {
    if !is_on("our_client_speaks_every_version_with_mosquitto") {
        return;
    }
    let mosquitto = Broker::mosquitto(OPEN, "");
    let url = format!("mqtt://{}", mosquitto.address());
    for version in ProtocolVersion::ALL {
        every_qos(&url, &options(version));
        floods(&url, &options(version), Order::NotKept);
        if version.has_session_present() {
            goes_on_with_its_session(&url, &options(version));
        }
    }
}

#[test]
fn our_client_comes_back_to_a_restarted_mosquitto() {
    if !is_on("our_client_comes_back_to_a_restarted_mosquitto") {
        return;
    }
    for version in ProtocolVersion::ALL {
        let mosquitto = Broker::mosquitto(OPEN, "");
        let port = mosquitto.port();
        comes_back(&options(version), mosquitto, || {
            Broker::mosquitto(OPEN, &format!("listener {port} 127.0.0.1"))
        });
    }
}

#[test]
fn our_client_speaks_with_mosquitto_over_tls() {
    if !is_on("our_client_speaks_with_mosquitto_over_tls") {
        return;
    }
    let certificates = Certificates::new();
    let (certificate, key) = &certificates.server;
    let (client_certificate, client_key) = certificates.client("me", 3);
    for strict in [false, true] {
        let mosquitto = Broker::mosquitto(
            OPEN,
            &format!(
                "cafile {}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate {strict}",
                certificates.ca
            ),
        );
        let url = format!("mqtts://localhost:{}", mosquitto.port());
        let mut tls = TlsOptions {
            ca_file: Some((&certificates.ca).into()),
            ..TlsOptions::default()
        };
        if strict {
            tls.cert_file = Some((&client_certificate).into());
            tls.key_file = Some((&client_key).into());
        }
        let options = options(ProtocolVersion::V311).tls(tls);
        every_qos(&url, &options);
        floods(&url, &options, Order::NotKept);
    }
}
