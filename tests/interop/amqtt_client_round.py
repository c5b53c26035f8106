"""One round with amqtt's client, HBMQTT's successor, against a broker: python amqtt_client_round.py URL. Prints `ok`."""

import asyncio
import sys

from amqtt.client import MQTTClient

WAIT = 20


async def main(url):
    subscriber = MQTTClient(client_id="amqtt-sub", config={"auto_reconnect": False})
    publisher = MQTTClient(client_id="amqtt-pub", config={"auto_reconnect": False})
    await subscriber.connect(url)
    await publisher.connect(url)
    granted = await subscriber.subscribe([("amqtt/0", 0), ("amqtt/1", 1), ("amqtt/2", 2)])
    assert list(granted) == [0, 1, 2], granted
    for qos in range(3):
        await asyncio.wait_for(publisher.publish(f"amqtt/{qos}", b"\x00data\xff", qos=qos), WAIT)
        message = await asyncio.wait_for(subscriber.deliver_message(), WAIT)
        assert (message.topic, message.qos, bytes(message.data)) == (f"amqtt/{qos}", qos, b"\x00data\xff"), message
    await publisher.publish("amqtt/retained", b"kept", qos=1, retain=True)
    await subscriber.subscribe([("amqtt/retained", 1)])
    message = await asyncio.wait_for(subscriber.deliver_message(), WAIT)
    assert message.retain and bytes(message.data) == b"kept"
    await subscriber.unsubscribe(["amqtt/0", "amqtt/1", "amqtt/2", "amqtt/retained"])
    await subscriber.disconnect()
    await publisher.disconnect()
    print("ok")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 3 * WAIT))
