// What only MQTT 5.0 has, with the npm package mqtt against a broker: node mqttjs_properties.js URL.
//
// The broker must have the settings of `FEATURES` in tests/it/interop/mod.rs, and a user alice with the password secret
// for SCRAM-SHA-256. Prints `ok` at the end; any failure ends with a status other than 0.
"use strict";

const assert = require("node:assert");
const crypto = require("node:crypto");
const mqtt = require(process.env.MQTT_PACKAGE || "mqtt");

const url = process.argv[2];
const WAIT = 20_000;

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in time`)), WAIT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A client whose messages stand in a queue. */
class Peer {
  constructor(name, options = {}) {
    this.queue = [];
    this.waiting = [];
    this.client = mqtt.connect(url, {
      clientId: name,
      protocolVersion: 5,
      reconnectPeriod: 0,
      manualConnect: true,
      ...options,
    });
    this.client.on("message", (topic, payload, packet) => {
      const message = { ...packet, topic, text: payload.toString() };
      const next = this.waiting.shift();
      if (next) next(message);
      else this.queue.push(message);
    });
    this.gone = new Promise((resolve) => this.client.once("disconnect", (packet) => resolve(packet)));
    this.gone.catch(() => {});
  }

  static async connect(name, options = {}, prepare = () => {}) {
    const peer = new Peer(name, options);
    prepare(peer.client);
    const answer = new Promise((resolve, reject) => {
      peer.client.once("connect", resolve);
      peer.client.once("error", reject);
      peer.client.once("close", () => reject(new Error("closed")));
    });
    peer.client.connect();
    peer.connack = await within(answer, "CONNACK");
    peer.client.on("error", () => {});
    return peer;
  }

  async subscribe(topic, options = {}) {
    const [granted] = await within(this.client.subscribeAsync(topic, { qos: 1, ...options }), "SUBACK");
    return granted.qos;
  }

  publish(topic, payload, options = {}) {
    return within(this.client.publishAsync(topic, payload, { qos: 1, ...options }), "acknowledgement");
  }

  /** The next PUBACK. */
  puback() {
    const come = new Promise((resolve) => {
      const see = (packet) => {
        if (packet.cmd !== "puback") return;
        this.client.off("packetreceive", see);
        resolve(packet);
      };
      this.client.on("packetreceive", see);
    });
    return within(come, "PUBACK");
  }

  /** The reason with which a publication fails. */
  async refused(topic, payload, properties) {
    try {
      await this.publish(topic, payload, { properties });
    } catch (error) {
      return error.code;
    }
    throw new Error(`${topic} is not refused`);
  }

  next() {
    if (this.queue.length > 0) return Promise.resolve(this.queue.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }

  async texts(count) {
    const found = [];
    while (found.length < count) found.push((await this.next()).text);
    return found;
  }

  /** Nothing comes but a message that this client sends itself now. */
  async nothing() {
    const marker = `marker/${crypto.randomUUID()}`;
    await this.subscribe(marker);
    await this.publish(marker, "");
    assert.strictEqual((await this.next()).topic, marker);
    await this.client.unsubscribeAsync(marker);
  }

  end() {
    return within(this.client.endAsync(), "end");
  }

  cut() {
    this.client.stream.destroy();
  }
}

async function whatConnackTells() {
  const peer = await Peer.connect("", { keepalive: 600, properties: { requestResponseInformation: true } });
  const told = peer.connack.properties;
  assert.ok(told.assignedClientIdentifier);
  assert.strictEqual(told.serverKeepAlive, 20);
  assert.strictEqual(told.receiveMaximum, 10);
  assert.strictEqual(told.topicAliasMaximum, 5);
  assert.strictEqual(told.maximumPacketSize, 100_000);
  assert.strictEqual(told.responseInformation, `responses/${told.assignedClientIdentifier}/`);
  await peer.end();
}

/** A will whose delay is longer than its session comes at the session's end: it tells when that is. */
async function sessionsExpire() {
  const watcher = await Peer.connect("watcher");
  await watcher.subscribe("ended");
  const will = { topic: "ended", payload: Buffer.from(""), qos: 1, properties: { willDelayInterval: 600 } };
  const lasting = (sessionExpiryInterval) => ({ clean: false, will, properties: { sessionExpiryInterval } });
  await (await Peer.connect("expires", { properties: { sessionExpiryInterval: 600 } })).end();
  let peer = await Peer.connect("expires", lasting(1));
  assert.ok(peer.connack.sessionPresent);
  peer.cut();
  await watcher.next();
  peer = await Peer.connect("expires", lasting(600));
  assert.ok(!peer.connack.sessionPresent);
  await peer.client.endAsync(false, { reasonCode: 4, properties: { sessionExpiryInterval: 0 } });
  await watcher.next();
  peer = await Peer.connect("expires", { clean: false });
  assert.ok(!peer.connack.sessionPresent);
  await peer.end();
  await watcher.end();
}

async function messagesExpire() {
  const keep = { clean: false, properties: { sessionExpiryInterval: 600 } };
  const away = await Peer.connect("away", keep);
  await away.subscribe("expire");
  await away.end();
  const publisher = await Peer.connect("");
  await publisher.publish("expire", "short", { properties: { messageExpiryInterval: 1 } });
  await publisher.publish("expire", "long", { properties: { messageExpiryInterval: 100 } });
  await pause(2000);
  const back = await Peer.connect("away", { clean: false });
  const message = await back.next();
  assert.strictEqual(message.text, "long");
  const left = message.properties.messageExpiryInterval;
  assert.ok(left >= 90 && left <= 98, String(left));
  await back.nothing();
  await back.end();
  await publisher.end();
}

async function windowsHold() {
  const held = [];
  const slow = await Peer.connect("slow", { properties: { receiveMaximum: 2 } }, (client) => {
    client.handleMessage = (_packet, done) => held.push(done);
  });
  await slow.subscribe("window");
  const publisher = await Peer.connect("");
  for (let number = 0; number < 4; number++) await publisher.publish("window", String(number));
  assert.deepStrictEqual(await slow.texts(1), ["0"]);
  // It takes the next one when the last is dealt with; the broker has sent no more than two.
  for (let number = 1; number < 4; number++) {
    held.shift()();
    assert.deepStrictEqual(await slow.texts(1), [String(number)]);
  }
  slow.cut();
  // 0x93: mqtt.js does not look at what CONNACK told.
  for (let number = 0; number < 20; number++) publisher.client.publish("elsewhere", "", { qos: 2 }, () => {});
  assert.strictEqual((await within(publisher.gone, "DISCONNECT")).reasonCode, 0x93);
}

async function sizesHold() {
  const small = await Peer.connect("small", { properties: { maximumPacketSize: 200 } });
  const large = await Peer.connect("large");
  for (const peer of [small, large]) await peer.subscribe("size");
  await large.publish("size", "x".repeat(500));
  await large.publish("size", "fits");
  assert.deepStrictEqual(await large.texts(2), ["x".repeat(500), "fits"]);
  assert.strictEqual((await small.next()).text, "fits");
  large.client.publish("size", "x".repeat(200_000), { qos: 1 }, () => {});
  assert.strictEqual((await within(large.gone, "DISCONNECT")).reasonCode, 0x95);
  await small.end();
}

async function aliasesStandForTopics() {
  const reader = await Peer.connect("reader", { properties: { topicAliasMaximum: 3 } });
  await reader.subscribe("alias/#");
  const publisher = await Peer.connect("publisher", { autoAssignTopicAlias: true });
  for (let round = 0; round < 3; round++) {
    for (const topic of ["alias/a", "alias/b"]) await publisher.publish(topic, "");
  }
  for (let round = 0; round < 3; round++) {
    for (const topic of ["alias/a", "alias/b"]) {
      const message = await reader.next();
      assert.strictEqual(message.topic, topic);
      assert.ok(message.properties.topicAlias >= 1 && message.properties.topicAlias <= 3);
    }
  }
  await publisher.end();
  await reader.end();
}

async function optionsOfSubscriptions() {
  const peer = await Peer.connect("options");
  const other = await Peer.connect("other");
  await peer.subscribe("overlap/#", { properties: { subscriptionIdentifier: 7 } });
  await peer.subscribe("overlap/a", { properties: { subscriptionIdentifier: 300 } });
  await other.publish("overlap/a", "x");
  const ids = [(await peer.next()).properties.subscriptionIdentifier].flat();
  assert.deepStrictEqual(ids.sort(), [300, 7]);
  await peer.subscribe("local", { nl: true });
  await peer.publish("local", "mine");
  await other.publish("local", "yours");
  assert.strictEqual((await peer.next()).text, "yours");
  for (const rap of [true, false]) {
    await peer.subscribe("published", { rap, rh: 2 });
    await other.publish("published", "x", { retain: true });
    assert.strictEqual((await peer.next()).retain, rap);
  }
  await peer.client.unsubscribeAsync("published");
  for (const [rh, counts] of [[0, [1, 1]], [1, [1, 0]], [2, [0, 0]]]) {
    for (const count of counts) {
      await peer.subscribe("published", { rh });
      for (let number = 0; number < count; number++) assert.ok((await peer.next()).retain);
      await peer.nothing();
    }
    await peer.client.unsubscribeAsync("published");
  }
  await other.publish("published", "", { retain: true });
  await peer.end();
  await other.end();
}

async function groupsShare() {
  const members = [];
  for (let number = 0; number < 3; number++) {
    members.push(await Peer.connect(`member${number}`));
    await members[number].subscribe("$share/group/work/+");
  }
  const publisher = await Peer.connect("");
  for (let number = 0; number < 9; number++) await publisher.publish("work/a", String(number));
  const found = (await Promise.all(members.map((member) => member.texts(3)))).flat().sort();
  assert.deepStrictEqual(found, [..."012345678"]);
  for (const peer of [...members, publisher]) await peer.end();
}

async function willsWait() {
  const watcher = await Peer.connect("watcher");
  await watcher.subscribe("will");
  const properties = {
    willDelayInterval: 1,
    payloadFormatIndicator: true,
    messageExpiryInterval: 100,
    contentType: "text/plain",
    responseTopic: "answer",
    correlationData: Buffer.from([0, 255]),
    userProperties: { b: ["1", "2"], a: "3" },
  };
  const will = { topic: "will", payload: Buffer.from("gone"), qos: 1, properties };
  const options = { clean: false, will, properties: { sessionExpiryInterval: 600 } };
  (await Peer.connect("dying", options)).cut();
  const cutAt = Date.now();
  // Back in time: no will. Away again: it comes, and late.
  (await Peer.connect("dying", options)).cut();
  const message = await watcher.next();
  assert.ok(Date.now() - cutAt >= 800);
  assert.strictEqual(message.text, "gone");
  const got = message.properties;
  assert.strictEqual(Boolean(got.payloadFormatIndicator), true);
  assert.strictEqual(got.messageExpiryInterval, 100);
  assert.strictEqual(got.contentType, "text/plain");
  assert.strictEqual(got.responseTopic, "answer");
  assert.deepStrictEqual(got.correlationData, Buffer.from([0, 255]));
  assert.deepStrictEqual({ ...got.userProperties }, { b: ["1", "2"], a: "3" });
  await watcher.nothing();
  await watcher.end();
}

async function reasonsTell() {
  const peer = await Peer.connect("reasons", { properties: { sessionExpiryInterval: 600 } });
  const answer = peer.puback();
  await peer.publish("nobody", "");
  assert.strictEqual((await answer).reasonCode, 0x10);
  for (const requestProblemInformation of [true, false]) {
    const asking = await Peer.connect("asking", { properties: { requestProblemInformation } });
    const puback = asking.puback();
    assert.strictEqual(await asking.refused("forbidden/a", ""), 0x87);
    const { properties } = await puback;
    assert.strictEqual(Boolean(properties?.reasonString), requestProblemInformation);
    await asking.end();
  }
  assert.strictEqual(await peer.refused("utf8", Buffer.from([255]), { payloadFormatIndicator: true }), 0x99);
  // 0x97: the queue of an offline subscriber is full.
  await peer.subscribe("full");
  await peer.end();
  const publisher = await Peer.connect("");
  for (let number = 0; number < 5; number++) await publisher.publish("full", "");
  assert.strictEqual(await publisher.refused("full", ""), 0x97);
  // 0x8E: somebody else comes under the same name.
  const first = await Peer.connect("twice");
  const second = await Peer.connect("twice");
  const goodbye = await within(first.gone, "DISCONNECT");
  assert.strictEqual(goodbye.reasonCode, 0x8e);
  assert.ok(goodbye.properties.reasonString);
  await assert.rejects(Peer.connect("x".repeat(40)), { code: 0x85 });
  await second.end();
  await publisher.end();
  await (await Peer.connect("reasons")).end();
}

/** SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side. */
class Scram {
  constructor(user, password) {
    this.password = password;
    this.bare = `n=${user},r=${crypto.randomBytes(18).toString("base64")}`;
    this.first = Buffer.from(`n,,${this.bare}`);
  }

  answer(challenge) {
    const text = challenge.toString();
    const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(text);
    const hmac = (key, data) => crypto.createHmac("sha256", key).update(data).digest();
    const salted = crypto.pbkdf2Sync(this.password, Buffer.from(salt, "base64"), Number(iterations), 32, "sha256");
    const key = hmac(salted, "Client Key");
    const unproved = `c=biws,r=${nonce}`;
    const all = `${this.bare},${text},${unproved}`;
    const signature = hmac(crypto.createHash("sha256").update(key).digest(), all);
    const proof = Buffer.from(key.map((byte, at) => byte ^ signature[at])).toString("base64");
    this.expected = `v=${hmac(hmac(salted, "Server Key"), all).toString("base64")}`;
    return Buffer.from(`${unproved},p=${proof}`);
  }
}

async function enhancedAuthentication() {
  const authenticationMethod = "SCRAM-SHA-256";
  const connect = (scram) =>
    Peer.connect("proved", { properties: { authenticationMethod, authenticationData: scram.first } }, (client) => {
      client.handleAuth = (packet, done) => {
        const authenticationData = scram.answer(packet.properties.authenticationData);
        done(null, { cmd: "auth", reasonCode: 0x18, properties: { authenticationMethod, authenticationData } });
      };
    });
  const scram = new Scram("alice", "secret");
  const peer = await connect(scram);
  assert.strictEqual(peer.connack.properties.authenticationMethod, authenticationMethod);
  assert.strictEqual(peer.connack.properties.authenticationData.toString(), scram.expected);
  assert.strictEqual(await peer.subscribe("proved"), 1);
  await peer.end();
  await assert.rejects(connect(new Scram("alice", "wrong")), { code: 0x87 });
  const unknown = { authenticationMethod: "none", authenticationData: Buffer.from("x") };
  await assert.rejects(Peer.connect("unknown", { properties: unknown }), { code: 0x8c });
}

async function main() {
  await whatConnackTells();
  await sessionsExpire();
  await messagesExpire();
  await windowsHold();
  await sizesHold();
  await aliasesStandForTopics();
  await optionsOfSubscriptions();
  await groupsShare();
  await willsWait();
  await reasonsTell();
  await enhancedAuthentication();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
