//! What CONNACK says binds the client.

use super::server::serve;
use super::*;
use crate::proto::ProtocolVersion;

/// [MQTT-3.1.2-21], [MQTT-3.2.2-21]: the Server Keep Alive replaces the client's own.
#[test]
fn the_client_pings_within_the_server_keep_alive() {
    let (url, server) = serve(|server| {
        let mut connack = Connack::new(false, ReasonCode::Success);
        connack.properties.server_keep_alive = Some(2);
        let (mut peer, connect) = server.welcome_with(connack);
        assert_eq!(connect.keep_alive, 600);
        // Within the patience of the test, which is much less than the client's own Keep Alive.
        assert_eq!(peer.receive(), Packet::Pingreq);
        peer.send(&Packet::Pingresp);
        peer.until_end()
    });
    let options = options()
        .version(ProtocolVersion::V5)
        .keep_alive(Duration::from_secs(600));
    let client = options.connect(&url).unwrap();
    // BLOCKS: until the server has had its ping: nothing is sent to the client.
    assert!(client.recv_timeout(Duration::from_millis(2_500)).is_err());
    client.disconnect().unwrap();
    server.join().unwrap();
}
