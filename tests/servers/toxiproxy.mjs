// Toxiproxy's Node client (toxiproxy-node-client on npm), unchanged, before `trunkline faults` with Redis behind it.
//
//     NODE_PATH=CLIENTS/node/node_modules toxiproxy.mjs API_HOST API_PORT REDIS_PORT
//
// Prints a line for each thing that it has shown, and stops at the first that is not so. What the client has no call
// for is asked with fetch.

import { isDeepStrictEqual } from "node:util";
import { createRequire } from "node:module";
import net from "node:net";

// An import would not look into NODE_PATH.
const { Toxiproxy, ToxiproxyError } = createRequire(import.meta.url)("toxiproxy-node-client");

const HANG = 10_000; // milliseconds: nothing that is served takes as long, on any machine
const NEVER = 60_000; // what a toxic holds for so long comes only when the toxic goes
const STREAMS = ["upstream", "downstream"];

const [HOST, API_PORT, REDIS_PORT] = process.argv.slice(2);
const API = `http://${HOST}:${API_PORT}`;
const UPSTREAM = `127.0.0.1:${REDIS_PORT}`;
const BIG = Buffer.from(Array.from({ length: 100_000 }, (_, n) => 97 + ((n * n) % 25)));
const PING = 14; // bytes of the command; its reply has 7

// --- What is said ----------------------------------------------------------------------------------------------------

class Failed extends Error {}

const shown = (what) => console.log(what);

function short(value) {
  const text = Buffer.isBuffer(value) ? JSON.stringify(value.toString("latin1")) : JSON.stringify(value) ?? "undefined";
  return text.length <= 300 ? text : `${text.slice(0, 200)}... (${text.length} long)`;
}

function equal(what, seen, expected) {
  if (!isDeepStrictEqual(seen, expected)) {
    throw new Failed(`${what}: expected ${short(expected)}, seen ${short(seen)}`);
  }
}

// Runs it; it must take so many milliseconds at the least.
async function takes(least, what, run) {
  const began = performance.now();
  const result = await run();
  const took = performance.now() - began;
  if (took < least) throw new Failed(`${what}: expected at least ${least} ms, took ${took.toFixed(3)} ms`);
  return result;
}

// Waits for it, but not for ever.
function inTime(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failed(`${what}: nothing came for ${HANG / 1000} s`)), HANG);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Runs a call of the client; it must be answered with this status.
async function refused(what, status, run) {
  const error = await inTime(what, run()).then((result) => result ?? "success", (error) => error);
  const expected = `Request failed with status code ${status}`;
  equal(what, error instanceof ToxiproxyError ? error.message : `${error}`, expected);
}

// --- A client of Redis -----------------------------------------------------------------------------------------------

const bulk = (bytes) => Buffer.concat([Buffer.from(`$${bytes.length}\r\n`), Buffer.from(bytes), Buffer.from("\r\n")]);
const command = (words) => Buffer.concat([Buffer.from(`*${words.length}\r\n`), ...words.map(bulk)]);
const text = (words) => Buffer.from(`${words}\r\n`);

// One connection, to a proxy or to Redis itself.
class Redis {
  static async connect(proxy) {
    const port = proxy ? Number(proxy.listen.split(":").at(-1)) : Number(REDIS_PORT);
    const redis = new Redis();
    redis.socket = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true });
    redis.buffer = Buffer.alloc(0);
    redis.last = "connecting";
    redis.connected = undefined;
    redis.over = undefined;
    // Whoever waits is woken by whatever happens, and looks for himself.
    redis.wake = () => {};
    const ended = (how) => {
      redis.over ??= how;
      redis.wake();
    };
    redis.socket.on("connect", () => {
      redis.connected = true;
      redis.wake();
    });
    redis.socket.on("data", (bytes) => {
      redis.buffer = Buffer.concat([redis.buffer, bytes]);
      redis.wake();
    });
    redis.socket.on("end", () => ended("end"));
    redis.socket.on("error", (error) => ended(error.code));
    await inTime(`connecting to port ${port}`, redis.until(() => redis.connected ?? redis.over));
    return redis;
  }

  // Waits until `look` finds something.
  async until(look) {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      await new Promise((resolve) => (this.wake = resolve));
    }
  }

  send(...words) {
    this.last = short(words[0]);
    this.socket.write(command(words));
  }

  // The bytes of the next reply, whole.
  async reply() {
    const what = `a reply to ${this.last}`;
    const whole = () => {
      const line = this.buffer.indexOf("\r\n") + 2;
      if (line >= 2) {
        const length = this.buffer[0] === 0x24 ? Number(this.buffer.subarray(1, line - 2)) : -1;
        const end = length < 0 ? line : line + length + 2;
        if (this.buffer.length >= end) return end;
      }
      if (this.over) throw new Failed(`${what}: after ${this.buffer.length} bytes came ${this.over}`);
      return undefined;
    };
    const end = await inTime(what, this.until(whole));
    const reply = this.buffer.subarray(0, end);
    this.buffer = this.buffer.subarray(end);
    return reply;
  }

  ask(...words) {
    this.send(...words);
    return this.reply();
  }

  async ping() {
    equal("the reply to PING", await this.ask("PING"), text("+PONG"));
  }

  // All that comes to the end of the stream, and how that is seen.
  async end() {
    const open = (error) => {
      if (error instanceof Failed) return `still open after ${HANG / 1000} s`;
      throw error;
    };
    const how = await inTime("the end", this.until(() => this.over)).catch(open);
    this.socket.destroy();
    return [this.buffer.toString(), how];
  }
}

// A new connection is served.
async function served(what, proxy) {
  const redis = await Redis.connect(proxy);
  await redis.ping();
  equal(`${what}: GET on a new connection`, await redis.ask("GET", "big"), bulk(BIG));
  redis.socket.destroy();
}

// A new connection is refused.
async function refuses(what, proxy) {
  const redis = await Redis.connect(proxy);
  equal(what, await redis.end(), ["", "ECONNREFUSED"]);
}

// --- A toxic's life --------------------------------------------------------------------------------------------------

// What the client has no call for.
async function raw(method, path, body, status = 200) {
  const answer = await fetch(API + path, { method, body, signal: AbortSignal.timeout(HANG) });
  const said = await answer.text();
  equal(`${method} ${path} ${short(body)}: the status (the body is ${said.slice(0, 200)})`, answer.status, status);
  return said;
}

class Toxic {
  // Adds a toxic, and sees that it is there.
  static async add(proxy, type, stream, attributes, toxicity = 1) {
    const toxic = new Toxic();
    toxic.proxy = proxy;
    toxic.expected = { name: `${type}_${stream}`, type, stream, toxicity, attributes };
    toxic.toxic = await proxy.addToxic({ type, stream, toxicity, attributes });
    await toxic.listed();
    return toxic;
  }

  async listed() {
    const { name } = this.expected;
    equal(`${name} as it is answered`, this.toxic.toJson(), this.expected);
    equal(`${name} by getToxic`, (await this.proxy.getToxic(name)).toJson(), this.expected);
    const listed = JSON.parse(await raw("GET", `/proxies/${this.proxy.name}/toxics`));
    equal(`${name} among the toxics`, listed, [this.expected]);
  }

  // What is not named stays as it was.
  async change(attributes) {
    this.toxic = await this.toxic.update({ attributes });
    this.expected = { ...this.expected, attributes: { ...this.expected.attributes, ...attributes } };
    await this.listed();
  }

  async remove() {
    const { name } = this.expected;
    await this.toxic.remove();
    await refused(`${name} when it is removed`, 404, () => this.proxy.getToxic(name));
    await refused(`${name} removed again`, 404, () => this.toxic.remove());
  }
}

// How many bytes of a direction the proxy has read, of all its connections.
async function received(proxy, stream) {
  const line = new RegExp(
    `^toxiproxy_proxy_received_bytes_total{direction="${stream}",proxy="${proxy.name}",.*} (\\d+)$`,
    "m",
  );
  const found = line.exec(await raw("GET", "/metrics"));
  if (!found) throw new Failed(`/metrics says nothing of the bytes of ${proxy.name} ${stream}`);
  return Number(found[1]);
}

// Sends a command, and returns when some of it, or of the reply to it, has come into the toxic's hands.
async function sendAndSee(proxy, stream, redis, ...words) {
  const before = await received(proxy, stream);
  redis.send(...words);
  const deadline = performance.now() + HANG;
  while ((await received(proxy, stream)) === before) {
    if (performance.now() > deadline) {
      throw new Failed(`the proxy had read nothing ${stream} ${HANG / 1000} s after ${redis.last}`);
    }
  }
}

// A PING on a new connection that is to end without a reply.
async function lonelyPing(proxy) {
  const redis = await Redis.connect(proxy);
  redis.send("PING");
  return redis.end();
}

const TOXICS = {
  async latency(proxy, stream) {
    const redis = await Redis.connect(proxy);
    await redis.ping();
    const toxic = await Toxic.add(proxy, "latency", stream, { latency: 150, jitter: 50 });
    for (let n = 0; n < 5; n += 1) {
      await takes(100, `PING with a latency of 150 +- 50 ms ${stream}`, () => redis.ping());
    }
    await toxic.change({ latency: 300, jitter: 0 });
    await takes(300, `PING with a latency of 300 ms ${stream}`, () => redis.ping());
    await toxic.change({ latency: NEVER });
    await sendAndSee(proxy, stream, redis, "GET", "big");
    await toxic.remove();
    equal("the reply that was held back", await redis.reply(), bulk(BIG));
    await redis.ping();
  },

  async bandwidth(proxy, stream) {
    const redis = await Redis.connect(proxy);
    const direct = await Redis.connect();
    const down = stream === "downstream";
    const words = down ? ["GET", "big"] : ["SET", "copy", BIG];
    const reply = down ? bulk(BIG) : text("+OK");
    await redis.ping();
    const toxic = await Toxic.add(proxy, "bandwidth", stream, { rate: 500 });
    for (const [rate, least] of [[500, 180], [250, 360]]) {
      await toxic.change({ rate });
      const what = `100 kB at ${rate} KB/s ${stream}`;
      equal(what, await takes(least, what, () => redis.ask(...words)), reply);
    }
    // 100 s for all of it.
    await toxic.change({ rate: 1 });
    await direct.ask("DEL", "copy");
    await sendAndSee(proxy, stream, redis, ...words);
    await toxic.remove();
    equal("the reply that was on its way", await redis.reply(), reply);
    await redis.ping();
    if (!down) equal("the value that was on its way", await direct.ask("GET", "copy"), bulk(BIG));
  },

  async slow_close(proxy, stream) {
    const beginToEnd = async (redis) => {
      if (stream === "upstream") {
        // The client is the first to end its stream, and Redis follows.
        redis.last = "the end of the client's stream";
        redis.socket.end();
      } else {
        equal("the reply to QUIT", await redis.ask("QUIT"), text("+OK"));
      }
    };
    const toxic = await Toxic.add(proxy, "slow_close", stream, { delay: 0 });
    for (const delay of [200, 400]) {
      await toxic.change({ delay });
      const redis = await Redis.connect(proxy);
      await redis.ping();
      const what = `the end with slow_close ${delay} ms ${stream}`;
      const end = async () => {
        await beginToEnd(redis);
        return redis.end();
      };
      equal(what, await takes(delay, what, end), ["", "end"]);
    }
    await toxic.change({ delay: NEVER });
    const redis = await Redis.connect(proxy);
    await redis.ping();
    await beginToEnd(redis);
    // Others are served meanwhile.
    await served(`slow_close ${stream}`, proxy);
    await toxic.remove();
    equal("the end that was held back", await redis.end(), ["", "end"]);
  },

  async timeout(proxy, stream) {
    const redis = await Redis.connect(proxy);
    const direct = await Redis.connect();
    await redis.ping();
    await direct.ask("DEL", "copy");
    let toxic = await Toxic.add(proxy, "timeout", stream, { timeout: 0 });
    await sendAndSee(proxy, stream, redis, "SET", "copy", "1");
    await toxic.remove();
    equal(`what passes a timeout ${stream}`, await redis.end(), ["", "end"]);
    const came = stream === "upstream" ? text(":0") : text(":1");
    equal(`whether a SET came to Redis with timeout ${stream}`, await direct.ask("EXISTS", "copy"), came);
    await served(`timeout ${stream} removed`, proxy);
    toxic = await Toxic.add(proxy, "timeout", stream, { timeout: 0 });
    await toxic.change({ timeout: 200 });
    const what = `a PING with timeout 200 ms ${stream}`;
    equal(what, await takes(200, what, () => lonelyPing(proxy)), ["", "end"]);
    await toxic.remove();
    await served(`timeout ${stream} removed again`, proxy);
  },

  async reset_peer(proxy, stream) {
    const expected = ["", "ECONNRESET"];
    let redis = await Redis.connect(proxy);
    await redis.ping();
    const toxic = await Toxic.add(proxy, "reset_peer", stream, { timeout: 0 });
    redis.send("PING");
    equal(`a connection that lives, with reset_peer ${stream}`, await redis.end(), expected);
    equal(`a new connection with reset_peer ${stream}`, await lonelyPing(proxy), expected);
    await toxic.change({ timeout: 200 });
    const what = `a new connection with reset_peer 200 ms ${stream}`;
    equal(what, await takes(200, what, () => lonelyPing(proxy)), expected);
    await toxic.change({ timeout: NEVER });
    redis = await Redis.connect(proxy);
    await sendAndSee(proxy, stream, redis, "GET", "big");
    await toxic.remove();
    equal("the reply that was held back", await redis.reply(), bulk(BIG));
    await redis.ping();
    await served(`reset_peer ${stream} removed`, proxy);
  },

  async slicer(proxy, stream) {
    const value = BIG.subarray(0, 1000);
    const redis = await Redis.connect(proxy);
    const direct = await Redis.connect();
    await direct.ask("SET", "small", value);
    const down = stream === "downstream";
    const words = down ? ["GET", "small"] : ["SET", "small", value];
    const reply = down ? bulk(value) : text("+OK");
    await redis.ping();
    const toxic = await Toxic.add(proxy, "slicer", stream, { average_size: 20, size_variation: 5, delay: 4000 });
    // Pieces of 25 bytes at the most; the rest behind the last is not seen.
    let what = `1000 bytes in slices of 20 +- 5 with 4 ms between ${stream}`;
    equal(what, await takes(39 * 4, what, () => redis.ask(...words)), reply);
    await toxic.change({ average_size: 10, size_variation: 0 });
    what = `1000 bytes in slices of 10 with 4 ms between ${stream}`;
    equal(what, await takes(99 * 4, what, () => redis.ask(...words)), reply);
    await toxic.change({ delay: NEVER * 1000 });
    await sendAndSee(proxy, stream, redis, ...words);
    await toxic.remove();
    equal("the reply that was held back", await redis.reply(), reply);
    await redis.ping();
    equal("the value behind the slicer", await direct.ask("GET", "small"), bulk(value));
  },

  async limit_data(proxy, stream) {
    // So many commands pass; the next one, or the reply to it, breaks off.
    const limited = async (redis, pings) => {
      for (let n = 0; n < pings; n += 1) await redis.ping();
      redis.send("PING");
      return redis.end();
    };
    const [whole, part, passes] = stream === "upstream" ? [PING, 7, ""] : [7, 3, "+PO"];
    let redis = await Redis.connect(proxy);
    await redis.ping();
    const toxic = await Toxic.add(proxy, "limit_data", stream, { bytes: 2 * whole + part });
    // On a connection that lives, the bytes count from here.
    equal(`a connection that lives, with limit_data ${stream}`, await limited(redis, 2), [passes, "end"]);
    equal(`a new connection with limit_data ${stream}`, await limited(await Redis.connect(proxy), 2), [passes, "end"]);
    await toxic.change({ bytes: whole + part });
    equal(`a new connection with less of it ${stream}`, await limited(await Redis.connect(proxy), 1), [passes, "end"]);
    redis = await Redis.connect(proxy);
    await redis.ping();
    await toxic.remove();
    equal("GET when the limit is removed", await redis.ask("GET", "big"), bulk(BIG));
    await redis.ping();
  },
};

// --- Everything else -------------------------------------------------------------------------------------------------

async function proxiesComeAndGo(server) {
  const { version } = JSON.parse(await server.getVersion());
  equal("the version is Toxiproxy's", /^2\.\d+\.\d+$/.test(version), true);
  equal("no proxies yet", await server.getAll(), {});
  await refused("a proxy that is not there", 404, () => server.get("nobody"));
  const one = await server.createProxy({ name: "one", upstream: UPSTREAM, listen: "localhost:0" });
  equal("a port was chosen", /^127\.0\.0\.1:[1-9]\d*$/.test(one.listen), true);
  const expected = { name: "one", upstream: UPSTREAM, listen: one.listen, enabled: true };
  equal("a new proxy", one.toJson(), expected);
  equal("get", (await server.get("one")).toJson(), expected);
  await served("a new proxy", one);

  // The one that is there as it is asked for keeps its toxics and its connections.
  const redis = await Redis.connect(one);
  await redis.ping();
  await one.addToxic({ type: "latency", stream: "upstream", toxicity: 1, attributes: { latency: 1, jitter: 0 } });
  const two = { name: "two", upstream: UPSTREAM, listen: "127.0.0.1:0" };
  const off = { name: "off", upstream: UPSTREAM, listen: "127.0.0.1:0", enabled: false };
  const made = await server.populate([expected, two, off]);
  equal("populate", Object.keys(made), ["one", "two", "off"]);
  equal("populate left alone what was there", made.one.toJson(), expected);
  equal("with its toxic", (await one.getToxic("latency_upstream")).name, "latency_upstream");
  await redis.ping();
  equal("populate disabled", made.off.enabled, false);
  await served("a proxy by populate", made.two);
  const all = Object.fromEntries(Object.entries(await server.getAll()).map(([name, proxy]) => [name, proxy.enabled]));
  equal("getAll", all, { off: false, one: true, two: true });

  // Another listening place: the old one refuses, and the connections end; the toxics stay.
  const moved = await made.two.update({ enabled: true, listen: "127.0.0.1:0", upstream: UPSTREAM });
  equal("the new place is another one", moved.listen === made.two.listen, false);
  await refuses("the old place", made.two);
  await served("the new place", moved);
  await moved.remove();
  await refuses("a removed proxy", moved);
  await refused("remove again", 404, () => moved.remove());
  await one.remove();
  equal("the connection of a removed proxy carries nothing", (await redis.end())[0], "");
  await made.off.remove();
  equal("all are removed", await server.getAll(), {});
  shown("proxies: createProxy, get, getAll, populate, update, remove, getVersion");
}

async function enabledOrNot(proxy) {
  const as = (enabled) => ({ enabled, listen: proxy.listen, upstream: proxy.upstream });
  const redis = await Redis.connect(proxy);
  await redis.ping();
  equal("update says disabled", (await proxy.update(as(false))).enabled, false);
  equal("the connection of a disabled proxy carries nothing", (await redis.end())[0], "");
  await refuses("a disabled proxy", proxy);
  const toxic = await Toxic.add(proxy, "latency", "downstream", { latency: 100, jitter: 0 });
  equal("update says enabled", (await proxy.update({ enabled: true })).toJson(), { ...proxy.toJson(), enabled: true });
  const again = await Redis.connect(proxy);
  await takes(100, "PING with a toxic from before the proxy was enabled", () => again.ping());
  await toxic.remove();
  await again.ping();
  await served("enabled again", proxy);
  shown("enabled: a disabled proxy refuses, and serves again when enabled");
}

async function reset(server, proxy) {
  for (const stream of STREAMS) {
    await proxy.addToxic({ type: "reset_peer", stream, toxicity: 1, attributes: { timeout: 0 } });
    await proxy.addToxic({ type: "bandwidth", stream, toxicity: 1, attributes: { rate: 0 } });
  }
  equal("reset_peer before the reset of all", await lonelyPing(proxy), ["", "ECONNRESET"]);
  await server.reset();
  equal("toxics after the reset of all", JSON.parse(await raw("GET", `/proxies/${proxy.name}/toxics`)), []);
  await served("after the reset of all", proxy);
  const redis = await Redis.connect(proxy);
  await redis.ping();
  await proxy.addToxic({ type: "latency", attributes: { latency: NEVER } });
  await sendAndSee(proxy, "downstream", redis, "GET", "big");
  await server.reset();
  equal("the reply that was held back before the reset of all", await redis.reply(), bulk(BIG));
  await proxy.update({ enabled: false });
  await server.reset();
  equal("enabled by the reset of all", (await server.get(proxy.name)).enabled, true);
  await served("enabled by the reset of all", proxy);
  shown("reset: enables, takes out the toxics, loses nothing; new connections are served at once");
}

async function on(server, proxy) {
  for (const [stream, whole, passes] of [["upstream", PING, ""], ["downstream", 7, "+PO"]]) {
    // The connections count from 1 again.
    await server.reset();
    const where = { connection: 2, after_bytes: 3 * whole + 3 };
    // The client sends what it does not know, too.
    const toxic = await proxy.addToxic({ type: "reset_peer", stream, attributes: { timeout: 0 }, on: where });
    for (const connection of [1, 2, 3]) {
      const redis = await Redis.connect(proxy);
      for (let n = 0; n < 3; n += 1) await redis.ping();
      redis.send("PING");
      if (connection === 2) {
        equal(`connection 2 behind 3 PINGs ${stream}`, await redis.end(), [passes, "ECONNRESET"]);
      } else {
        equal(`connection ${connection} ${stream}`, await redis.reply(), text("+PONG"));
        await redis.ping();
      }
    }
    await toxic.remove();
  }
  shown("on: the second connection alone is reset, behind exactly the byte that was named");
}

async function badInput(server, proxy) {
  const there = { type: "latency", name: "there", attributes: { latency: 0, jitter: 0 } };
  await proxy.addToxic(there);
  const before = await raw("GET", "/proxies");
  const fresh = { name: "new", upstream: UPSTREAM, listen: "127.0.0.1:0" };
  const taken = `${HOST}:${API_PORT}`;
  const toxic = await proxy.getToxic("there");
  const long = "x".repeat(10_000_000);
  for (const [what, status, run] of [
    ["a toxic of no known type", 400, () => proxy.addToxic({ type: "poison" })],
    ["a toxic in no known stream", 400, () => proxy.addToxic({ ...there, name: "", stream: "sideways" })],
    ["an attribute in words", 400, () => proxy.addToxic({ ...there, attributes: { latency: "long" } })],
    ["a toxicity in words", 400, () => proxy.addToxic({ ...there, toxicity: "all" })],
    ["a toxic that is there", 409, () => proxy.addToxic(there)],
    ["a toxic that is not there", 404, () => proxy.getToxic("nowhere")],
    ["a change to words", 400, () => toxic.update({ attributes: { latency: "long" } })],
    ["a proxy that is there", 409, () => server.createProxy({ ...fresh, name: proxy.name })],
    ["a proxy without an upstream", 400, () => server.createProxy({ name: "new" })],
    ["a proxy without a name", 400, () => server.createProxy({ ...fresh, name: undefined })],
    ["enabled in words", 400, () => server.createProxy({ ...fresh, enabled: "yes" })],
    ["10 MB", 400, () => server.createProxy({ name: long })],
    ["10 MB in a list", 400, () => server.populate([{ name: long }])],
    ["a place that is taken", 500, () => server.createProxy({ ...fresh, listen: taken })],
    ["a list with a place that is taken", 500, () => server.populate([{ ...fresh, listen: taken }])],
    ["an update to a place that is taken", 500, () => proxy.update({ listen: taken })],
    ["an update to words", 400, () => proxy.update({ enabled: "yes" })],
    ["an object for a list", 400, () => server.populate(fresh)],
    ["a list whose second is without a name", 400, () => server.populate([fresh, { upstream: UPSTREAM }])],
  ]) {
    await refused(what, status, run);
    equal(`the proxies after ${what}`, await raw("GET", "/proxies"), before);
  }
  const said = JSON.parse(await raw("POST", "/proxies", "{", 400));
  equal("an error's fields", Object.keys(said).sort(), ["error", "status"]);
  await served("after it all", proxy);
  await (await proxy.getToxic("there")).remove();
  shown("bad input: Toxiproxy's status each time, and nothing has changed");
}

async function toxicity(proxy) {
  for (const stream of STREAMS) {
    const toxics = [];
    for (const [type, attributes] of [
      ["latency", { latency: NEVER }],
      ["timeout", { timeout: 0 }],
      ["reset_peer", { timeout: 0 }],
      ["limit_data", { bytes: 0 }],
    ]) {
      toxics.push(await proxy.addToxic({ type, stream, toxicity: 0, attributes }));
    }
    equal("toxicities", toxics.map((toxic) => toxic.toxicity), [0, 0, 0, 0]);
    await served(`toxicity 0 ${stream}`, proxy);
    // On connections that live, too.
    const redis = await Redis.connect(proxy);
    await redis.ping();
    equal("a reset by change", (await toxics[2].update({ toxicity: 1 })).toxicity, 1);
    redis.send("PING");
    equal(`toxicity changed to 1 ${stream}`, await redis.end(), ["", "ECONNRESET"]);
    for (const toxic of toxics) await toxic.remove();
  }
  shown("toxicity 0: nothing happens, until it is changed");
  await (await Toxic.add(proxy, "latency", "downstream", { latency: 1, jitter: 0 }, 0.3)).remove();
  shown("toxicity 0.3 is listed as 0.3");
}

async function main() {
  const server = new Toxiproxy(API);
  equal("SET", await (await Redis.connect()).ask("SET", "big", BIG), text("+OK"));
  await proxiesComeAndGo(server);
  const proxy = await server.createProxy({ name: "redis", upstream: UPSTREAM, listen: "127.0.0.1:0" });
  for (const [name, toxic] of Object.entries(TOXICS)) {
    for (const stream of STREAMS) {
      await toxic(proxy, stream);
      equal(`toxics after ${name}`, JSON.parse(await raw("GET", `/proxies/${proxy.name}/toxics`)), []);
      shown(`${name} ${stream}: added, listed, felt, changed, felt, removed, gone`);
    }
  }
  await enabledOrNot(proxy);
  await reset(server, proxy);
  await on(server, proxy);
  await badInput(server, proxy);
  await toxicity(proxy);
  await proxy.remove();
}

// Sockets that are still open would keep it from ending.
main().then(
  () => process.exit(0),
  (error) => {
    console.error("FAILED:", error);
    process.exit(1);
  },
);
