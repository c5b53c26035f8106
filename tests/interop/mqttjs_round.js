// One round of everything with the npm package mqtt against a broker: node mqttjs_round.js URL VERSION.
//
// VERSION is 3, 4 or 5 (the protocol level). Prints `ok` at the end; any failure ends with a status other than 0.
"use strict";

const assert = require("node:assert");
const mqtt = require(process.env.MQTT_PACKAGE || "mqtt");

const [url, level] = [process.argv[2], Number(process.argv[3])];
const prefix = `mqttjs/${level}/${url.split(":")[0]}`;
const WAIT = 20_000;

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in time`)), WAIT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A connected client whose messages stand in a queue. */
class Peer {
  static async connect(name, options = {}) {
    const peer = new Peer();
    peer.queue = [];
    peer.waiting = [];
    peer.client = mqtt.connect(url, {
      clientId: name,
      protocolVersion: level,
      protocolId: level === 3 ? "MQIsdp" : "MQTT",
      reconnectPeriod: 0,
      ...options,
    });
    peer.client.on("message", (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain, properties: packet.properties };
      const next = peer.waiting.shift();
      if (next) next(message);
      else peer.queue.push(message);
    });
    const connack = await within(
      new Promise((resolve, reject) => {
        peer.client.once("connect", resolve);
        peer.client.once("error", reject);
        peer.client.once("close", () => reject(new Error("closed")));
      }),
      "CONNACK",
    );
    peer.client.on("error", () => {});
    peer.sessionPresent = connack.sessionPresent;
    return peer;
  }

  async subscribe(topic, qos) {
    const [granted] = await within(this.client.subscribeAsync(topic, { qos }), "SUBACK");
    assert.strictEqual(granted.qos, qos);
  }

  publish(topic, payload, options = {}) {
    return within(this.client.publishAsync(topic, payload, options), "acknowledgement");
  }

  next() {
    if (this.queue.length > 0) return Promise.resolve(this.queue.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }

  end() {
    return within(this.client.endAsync(), "end");
  }

  cut() {
    this.client.stream.destroy();
  }
}

async function main() {
  const subscriber = await Peer.connect(`${prefix}/sub`);
  const publisher = await Peer.connect(`${prefix}/pub`);

  for (let published = 0; published < 3; published++) {
    for (let granted = 0; granted < 3; granted++) {
      const topic = `${prefix}/qos/${published}/${granted}`;
      await subscriber.subscribe(topic, granted);
      await publisher.publish(topic, Buffer.from([0, 255, 10]), { qos: published });
      const message = await subscriber.next();
      assert.strictEqual(message.topic, topic);
      assert.strictEqual(message.qos, Math.min(published, granted));
      assert.deepStrictEqual(message.payload, Buffer.from([0, 255, 10]));
    }
  }

  await publisher.publish(`${prefix}/retained`, "kept", { qos: 1, retain: true });
  await subscriber.subscribe(`${prefix}/retained`, 1);
  const kept = await subscriber.next();
  assert.ok(kept.retain && kept.payload.toString() === "kept");
  await publisher.publish(`${prefix}/retained`, "", { qos: 1, retain: true });
  assert.strictEqual((await subscriber.next()).payload.length, 0);

  await subscriber.subscribe(`${prefix}/will`, 1);
  const will = { topic: `${prefix}/will`, payload: Buffer.from("gone"), qos: 1, retain: false };
  (await Peer.connect(`${prefix}/dying`, { will })).cut();
  assert.strictEqual((await subscriber.next()).payload.toString(), "gone");

  const keep = { clean: false, ...(level === 5 ? { properties: { sessionExpiryInterval: 600 } } : {}) };
  const away = await Peer.connect(`${prefix}/kept`, keep);
  await away.subscribe(`${prefix}/queue`, 2);
  await away.end();
  for (let number = 0; number < 50; number++) {
    await publisher.publish(`${prefix}/queue`, String(number), { qos: 1 + (number % 2) });
  }
  const back = await Peer.connect(`${prefix}/kept`, keep);
  if (level > 3) assert.ok(back.sessionPresent);
  // The order holds within a QoS: a QoS 2 message is handed out when its flow is complete.
  const queued = [];
  for (let number = 0; number < 50; number++) queued.push(await back.next());
  for (const qos of [1, 2]) {
    const payloads = queued.filter((message) => message.qos === qos).map((message) => Number(message.payload));
    assert.deepStrictEqual(payloads, Array.from({ length: 25 }, (_, index) => 2 * index + qos - 1));
  }
  await back.end();

  const large = Buffer.alloc(1_000_000, "0123456789abcdef");
  await subscriber.subscribe(`${prefix}/large`, 2);
  await publisher.publish(`${prefix}/large`, large, { qos: 2 });
  assert.ok((await subscriber.next()).payload.equals(large));

  if (level === 5) {
    await subscriber.subscribe(`${prefix}/properties`, 1);
    const properties = {
      payloadFormatIndicator: true,
      messageExpiryInterval: 600,
      contentType: "text/plain",
      responseTopic: `${prefix}/answer`,
      correlationData: Buffer.from([1, 2]),
      userProperties: { a: ["1", "3"], b: "2" },
    };
    await publisher.publish(`${prefix}/properties`, "text", { qos: 1, properties });
    const got = (await subscriber.next()).properties;
    assert.ok(got.messageExpiryInterval >= 590 && got.messageExpiryInterval <= 600);
    assert.strictEqual(got.contentType, "text/plain");
    assert.strictEqual(got.responseTopic, `${prefix}/answer`);
    assert.deepStrictEqual(got.correlationData, Buffer.from([1, 2]));
    assert.deepStrictEqual({ ...got.userProperties }, { a: ["1", "3"], b: "2" });
    assert.strictEqual(Boolean(got.payloadFormatIndicator), true);
  }

  await subscriber.end();
  await publisher.end();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
