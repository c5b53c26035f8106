"""One round of everything with paho-mqtt against a broker: python paho_round.py HOST PORT VERSION TRANSPORT.

VERSION is 3, 4 or 5 (the protocol level), TRANSPORT tcp or websockets. Prints `ok` at the end; any failure is an
exception and a status other than 0.
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, VERSION, TRANSPORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
WAIT = 20
PREFIX = f"paho/{VERSION}/{TRANSPORT}"


class Peer:
    """A connected client whose messages stand in a queue."""

    def __init__(self, name, keep=False, will=None):
        arguments = {"client_id": name, "protocol": VERSION, "transport": TRANSPORT}
        if VERSION != 5:
            arguments["clean_session"] = not keep
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, **arguments)
        self.messages = queue.Queue()
        self.connected = queue.Queue()
        self.subscribed = queue.Queue()
        self.closed = threading.Event()
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = lambda _client, _data, flags, reason, _properties: self.connected.put((flags, reason))
        self.client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self.subscribed.put(reasons)
        self.client.on_disconnect = lambda *_: self.closed.set()
        if will:
            self.client.will_set(*will)
        extra = {}
        if VERSION == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if keep else 0
            extra = {"clean_start": not keep, "properties": properties}
        self.client.connect(HOST, PORT, keepalive=30, **extra)
        self.client.loop_start()
        self.flags, reason = self.connected.get(timeout=WAIT)
        assert not reason.is_failure, reason

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        reasons = self.subscribed.get(timeout=WAIT)
        assert [reason.value for reason in reasons] == [qos], reasons

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self.client.publish(topic, payload, qos, retain, properties).wait_for_publish(WAIT)

    def next(self):
        return self.messages.get(timeout=WAIT)

    def end(self):
        self.client.disconnect()
        assert self.closed.wait(WAIT)
        self.client.loop_stop()

    def cut(self):
        """Ends the connection without DISCONNECT."""
        self.client._sock_close()
        self.client.loop_stop()


def main():
    subscriber = Peer(f"{PREFIX}/sub")
    publisher = Peer(f"{PREFIX}/pub")

    for published in range(3):
        for granted in range(3):
            topic = f"{PREFIX}/qos/{published}/{granted}"
            subscriber.subscribe(topic, granted)
            publisher.publish(topic, b"\x00payload\xff", published)
            message = subscriber.next()
            assert (message.topic, message.qos, message.payload, message.retain) == (
                topic,
                min(published, granted),
                b"\x00payload\xff",
                False,
            ), (message.topic, message.qos)

    publisher.publish(f"{PREFIX}/retained", b"kept", 1, True)
    subscriber.subscribe(f"{PREFIX}/retained", 1)
    message = subscriber.next()
    assert message.retain and message.payload == b"kept"
    publisher.publish(f"{PREFIX}/retained", b"", 1, True)
    assert subscriber.next().payload == b""

    subscriber.subscribe(f"{PREFIX}/will", 2)
    Peer(f"{PREFIX}/dying", will=(f"{PREFIX}/will", b"gone", 2, False)).cut()
    assert subscriber.next().payload == b"gone"

    kept = Peer(f"{PREFIX}/kept", keep=True)
    kept.subscribe(f"{PREFIX}/queue", 2)
    kept.end()
    for number in range(50):
        publisher.publish(f"{PREFIX}/queue", str(number), 1 + number % 2)
    kept = Peer(f"{PREFIX}/kept", keep=True)
    assert kept.flags.session_present or VERSION == 3
    # The order holds within a QoS: paho hands a QoS 2 message out when its flow is complete.
    queued = [kept.next() for _ in range(50)]
    for qos in (1, 2):
        payloads = [int(message.payload) for message in queued if message.qos == qos]
        assert payloads == list(range(qos - 1, 50, 2)), payloads
    kept.end()

    large = bytes(range(256)) * 4000
    subscriber.subscribe(f"{PREFIX}/large", 2)
    publisher.publish(f"{PREFIX}/large", large, 2)
    assert subscriber.next().payload == large

    if VERSION == 5:
        properties_of_5_0(subscriber, publisher)

    subscriber.end()
    publisher.end()
    print("ok")


def properties_of_5_0(subscriber, publisher):
    """Each property of a PUBLISH goes through unchanged."""
    subscriber.subscribe(f"{PREFIX}/properties", 1)
    sent = Properties(PacketTypes.PUBLISH)
    sent.PayloadFormatIndicator = 1
    sent.MessageExpiryInterval = 600
    sent.ContentType = "text/plain"
    sent.ResponseTopic = f"{PREFIX}/answer"
    sent.CorrelationData = b"\x01\x02"
    sent.UserProperty = [("a", "1"), ("b", "2"), ("a", "3")]
    publisher.publish(f"{PREFIX}/properties", "text", 1, False, sent)
    got = subscriber.next().properties
    assert got.PayloadFormatIndicator == 1
    assert 590 <= got.MessageExpiryInterval <= 600
    assert (got.ContentType, got.ResponseTopic) == ("text/plain", f"{PREFIX}/answer")
    assert got.CorrelationData == b"\x01\x02"
    assert got.UserProperty == [("a", "1"), ("b", "2"), ("a", "3")]


main()
