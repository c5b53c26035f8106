"""amqtt's broker on 127.0.0.1: python amqtt_broker.py PORT. Prints `ready` when it listens; runs until its input ends."""

import asyncio
import sys

from amqtt.broker import Broker


async def main(port):
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await broker.shutdown()


asyncio.run(main(int(sys.argv[1])))
