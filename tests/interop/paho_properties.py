"""What only MQTT 5.0 has, with paho-mqtt against a broker: python paho_properties.py HOST PORT.

The broker must have the settings of `FEATURES` in tests/it/interop/mod.rs. Prints `ok` at the end; any failure is an
exception and a status other than 0. (paho-mqtt has no enhanced authentication; mqttjs_properties.js shows that.)
"""

import queue
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT = sys.argv[1], int(sys.argv[2])
WAIT = 20
SHORT = 0.5


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """A client whose messages and acknowledgements stand in queues."""

    def __init__(self, name, clean=True, keepalive=30, will=None, manual=False, window=10, **connect):
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=5, manual_ack=manual, reconnect_on_failure=False
        )
        self.client.max_inflight_messages = window
        self.messages, self.connected, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        self.unsubscribed, self.published, self.closed = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = lambda _client, _data, flags, reason, found: self.connected.put((flags, reason, found))
        self.client.on_subscribe = lambda _client, _data, _mid, reasons, found: self.subscribed.put((reasons, found))
        self.client.on_unsubscribe = lambda _client, _data, _mid, reasons, found: self.unsubscribed.put((reasons, found))
        self.client.on_publish = lambda _client, _data, _mid, reason, found: self.published.put((reason, found))
        self.client.on_disconnect = lambda _client, _data, _flags, reason, found: self.closed.put((reason, found))
        if will:
            self.client.will_set(**will)
        self.client.connect(
            HOST, PORT, keepalive, clean_start=clean, properties=properties(PacketTypes.CONNECT, **connect)
        )
        self.client.loop_start()
        self.flags, self.reason, self.connack = self.connected.get(timeout=WAIT)

    def subscribe(self, topic, qos=1, identifier=None, **options):
        found = properties(PacketTypes.SUBSCRIBE)
        if identifier:
            found.SubscriptionIdentifier = identifier
        self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options), properties=found)
        [reason], found = self.subscribed.get(timeout=WAIT)
        return reason.value, found

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        reasons, _ = self.unsubscribed.get(timeout=WAIT)
        return reasons[0].value

    def publish(self, topic, payload, qos=1, retain=False, **sent):
        """The reason code, and the properties of the acknowledgement."""
        self.client.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **sent))
        reason, found = self.published.get(timeout=WAIT)
        return reason.value, found

    def next(self):
        return self.messages.get(timeout=WAIT)

    def payloads(self, count):
        return [self.next().payload for _ in range(count)]

    def nothing(self):
        """Nothing comes but a message that this client sends itself now."""
        marker = f"marker/{id(self)}"
        self.subscribe(marker)
        self.publish(marker, b"marker")
        assert self.next().topic == marker
        self.unsubscribe(marker)

    def end(self):
        self.client.disconnect()
        self.closed.get(timeout=WAIT)
        self.client.loop_stop()

    def cut(self):
        self.client._sock_close()
        self.client.loop_stop()


def what_connack_tells():
    peer = Peer("", keepalive=600, RequestResponseInformation=1)
    told = peer.connack
    assert told.AssignedClientIdentifier
    assert (told.ServerKeepAlive, told.ReceiveMaximum, told.TopicAliasMaximum) == (20, 10, 5)
    assert told.MaximumPacketSize == 100_000
    assert told.ResponseInformation == f"responses/{told.AssignedClientIdentifier}/"
    assert not hasattr(Peer("plain").connack, "ResponseInformation")
    peer.end()


def sessions_expire():
    """A will whose delay is longer than its session comes at the session's end: it tells when that is."""
    watcher = Peer("watcher")
    watcher.subscribe("ended")
    delay = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=600)
    will = {"topic": "ended", "payload": b"", "qos": 1, "properties": delay}
    Peer("expires", SessionExpiryInterval=600).end()
    peer = Peer("expires", clean=False, will=will, SessionExpiryInterval=1)
    assert peer.flags.session_present
    peer.cut()
    watcher.next()
    peer = Peer("expires", clean=False, will=will, SessionExpiryInterval=600)
    assert not peer.flags.session_present
    # The interval is changed at DISCONNECT (0x04: with the will).
    peer.client.disconnect(
        reasoncode=ReasonCode(PacketTypes.DISCONNECT, identifier=4),
        properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0),
    )
    watcher.next()
    peer.client.loop_stop()
    assert not Peer("expires", clean=False).flags.session_present
    watcher.end()


def messages_expire():
    away = Peer("away", SessionExpiryInterval=600)
    away.subscribe("expire")
    away.end()
    publisher = Peer("")
    publisher.publish("expire", b"short", MessageExpiryInterval=1)
    publisher.publish("expire", b"long", MessageExpiryInterval=100)
    publisher.publish("expire/kept", b"short", retain=True, MessageExpiryInterval=1)
    time.sleep(2)
    away = Peer("away", clean=False, SessionExpiryInterval=0)
    message = away.next()
    assert message.payload == b"long" and 90 <= message.properties.MessageExpiryInterval <= 98
    away.subscribe("expire/kept")
    away.nothing()
    away.end()


def windows_hold():
    slow = Peer("slow", manual=True, ReceiveMaximum=2)
    slow.subscribe("window")
    publisher = Peer("")
    for number in range(4):
        publisher.publish("window", str(number))
    first, second = slow.next(), slow.next()
    try:
        raise AssertionError(slow.messages.get(timeout=SHORT))
    except queue.Empty:
        pass
    slow.client.ack(first.mid, first.qos)
    slow.client.ack(second.mid, second.qos)
    assert slow.payloads(2) == [b"2", b"3"]
    # The other way: what CONNACK told is held to. 0x93: paho does not look at it.
    many = Peer("many")
    many.subscribe("many", 2)
    for number in range(50):
        publisher.client.publish("many", str(number), 2)
    assert sorted(map(int, many.payloads(50))) == list(range(50))
    careless = Peer("careless", window=20)
    for number in range(20):
        careless.client.publish("elsewhere", str(number), 2)
    reason, _ = careless.closed.get(timeout=WAIT)
    assert reason.value == 0x93, reason
    careless.client.loop_stop()
    for peer in (slow, publisher, many):
        peer.end()


def sizes_hold():
    small, large, publisher = Peer("small", MaximumPacketSize=200), Peer("large"), Peer("publisher")
    for peer in (small, large):
        peer.subscribe("size")
    publisher.publish("size", b"x" * 500)
    publisher.publish("size", b"fits")
    assert large.payloads(2) == [b"x" * 500, b"fits"]
    assert small.next().payload == b"fits"
    # 0x95: above what CONNACK told.
    publisher.client.publish("size", b"x" * 200_000, 1)
    reason, _ = publisher.closed.get(timeout=WAIT)
    assert reason.value == 0x95, reason
    publisher.client.loop_stop()
    small.end()
    large.end()


def aliases_stand_for_topics():
    reader, publisher = Peer("reader", TopicAliasMaximum=3), Peer("publisher")
    reader.subscribe("alias/#")
    for _ in range(3):
        publisher.publish("alias/a", b"x", TopicAlias=4)
        publisher.publish("", b"y", TopicAlias=4)
    known = {}
    for _ in range(6):
        message = reader.next()
        alias = message.properties.TopicAlias
        assert 1 <= alias <= 3
        topic = known.setdefault(alias, message.topic)
        assert topic == "alias/a" and message.topic in ("", topic)
    assert message.topic == ""
    reader.end()
    # 0x94: above the maximum that CONNACK told.
    publisher.client.publish("alias/a", b"x", 1, properties=properties(PacketTypes.PUBLISH, TopicAlias=6))
    reason, _ = publisher.closed.get(timeout=WAIT)
    assert reason.value == 0x94, reason
    publisher.client.loop_stop()


def options_of_subscriptions():
    peer, other = Peer("options"), Peer("other")
    peer.subscribe("overlap/#", identifier=7)
    peer.subscribe("overlap/a", identifier=300)
    other.publish("overlap/a", b"x")
    assert sorted(peer.next().properties.SubscriptionIdentifier) == [7, 300]
    peer.subscribe("local", noLocal=True)
    peer.publish("local", b"mine")
    other.publish("local", b"yours")
    assert peer.next().payload == b"yours"
    for keeps in (True, False):
        peer.subscribe("published", retainAsPublished=keeps, retainHandling=2)
        other.publish("published", b"x", retain=True)
        assert peer.next().retain == keeps
    for handling, first, again in ((0, 1, 1), (1, 1, 0), (2, 0, 0)):
        for expected in (first, again):
            peer.subscribe("published", retainHandling=handling)
            for _ in range(expected):
                assert peer.next().retain
            peer.nothing()
        peer.unsubscribe("published")
    other.publish("published", b"", retain=True)
    peer.end()
    other.end()


def groups_share():
    members, publisher = [Peer(f"member{number}") for number in range(3)], Peer("")
    for member in members:
        member.subscribe("$share/group/work/+")
    for number in range(9):
        publisher.publish("work/a", str(number))
    found = [member.payloads(3) for member in members]
    assert sorted(int(payload) for payloads in found for payload in payloads) == list(range(9))
    for peer in (*members, publisher):
        peer.end()


def wills_wait():
    watcher = Peer("watcher")
    watcher.subscribe("will")
    carried = properties(
        PacketTypes.WILLMESSAGE,
        WillDelayInterval=1,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=100,
        ContentType="text/plain",
        ResponseTopic="answer",
        CorrelationData=b"\x00\xff",
        UserProperty=[("b", "1"), ("a", "2"), ("b", "1")],
    )
    will = {"topic": "will", "payload": b"gone", "qos": 1, "properties": carried}
    Peer("dying", will=will, SessionExpiryInterval=600).cut()
    cut_at = time.monotonic()
    # Back in time: no will. Away again: it comes, and late.
    Peer("dying", clean=False, will=will, SessionExpiryInterval=600).cut()
    message = watcher.next()
    assert time.monotonic() - cut_at >= 0.8
    got = message.properties
    assert message.payload == b"gone" and got.UserProperty == [("b", "1"), ("a", "2"), ("b", "1")]
    assert (got.PayloadFormatIndicator, got.MessageExpiryInterval, got.ContentType) == (1, 100, "text/plain")
    assert (got.ResponseTopic, got.CorrelationData) == ("answer", b"\x00\xff")
    watcher.nothing()
    watcher.end()


def reasons_tell():
    peer = Peer("reasons", SessionExpiryInterval=600)
    assert peer.publish("nobody", b"")[0] == 0x10
    assert peer.publish("nobody", b"", 2)[0] in (0x00, 0x10)  # paho reports PUBCOMP
    assert peer.unsubscribe("nothing") == 0x11
    for wanted in (1, 0):
        asking = Peer("asking", RequestProblemInformation=wanted)
        reason, found = asking.publish("forbidden/a", b"")
        assert reason == 0x87 and hasattr(found, "ReasonString") == bool(wanted), found
        reason, found = asking.subscribe("l/" * 30)
        assert reason == 0x8F and hasattr(found, "ReasonString") == bool(wanted), found
        asking.end()
    reason, found = peer.publish("utf8", b"\xff", PayloadFormatIndicator=1)
    assert reason == 0x99 and found.ReasonString
    # 0x97: the queue of an offline subscriber is full.
    peer.subscribe("full")
    peer.end()
    publisher = Peer("")
    reasons = [publisher.publish("full", b"")[0] for _ in range(6)]
    assert reasons == [0] * 5 + [0x97], reasons
    # 0x8E: somebody else comes under the same name.
    first = Peer("twice")
    second = Peer("twice")
    reason, found = first.closed.get(timeout=WAIT)
    assert reason.value == 0x8E and found.ReasonString, reason
    first.client.loop_stop()
    assert Peer("x" * 40).reason.value == 0x85
    second.end()
    publisher.end()
    Peer("reasons").end()


what_connack_tells()
sessions_expire()
messages_expire()
windows_hold()
sizes_hold()
aliases_stand_for_topics()
options_of_subscriptions()
groups_share()
wills_wait()
reasons_tell()
print("ok")
