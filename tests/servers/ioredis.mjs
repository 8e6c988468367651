// ioredis, unchanged, before clients that share trunks.
//
//     NODE_PATH=CLIENTS/node/node_modules ioredis.mjs PROXY_PORT
//
// Prints a line for each thing that it has shown. It is run as it comes, and so that it says nothing of itself, not even
// by CLIENT SETINFO.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { once } from "node:events";

// An import would not look into NODE_PATH.
const { Redis } = createRequire(import.meta.url)("ioredis");

const PORT = Number(process.argv[2]);

async function values(redis, key) {
  assert.equal(await redis.set(`${key}:a`, "1"), "OK");
  assert.equal(await redis.get(`${key}:a`), "1");
  assert.equal(await redis.get(`${key}:nothing`), null);
  assert.equal(await redis.hset(`${key}:h`, { one: 1, two: 2 }), 2);
  assert.deepEqual(await redis.hgetall(`${key}:h`), { one: "1", two: "2" });
  const big = Buffer.alloc(300_000, "abcdefg");
  await redis.set(`${key}:big`, big);
  assert.ok(big.equals(await redis.getBuffer(`${key}:big`)));
  await assert.rejects(redis.hset(`${key}:a`, "one", 1), /WRONGTYPE/);
  // Without waiting: it sends them in one go.
  const numbers = Array.from({ length: 500 }, (_, n) => n);
  assert.deepEqual(await Promise.all(numbers.map(() => redis.incr(`${key}:n`))), numbers.map((n) => n + 1));
}

async function pipelines(redis, key) {
  const pipeline = redis.pipeline();
  for (let n = 0; n < 500; n++) pipeline.set(`${key}:${n}`, n).get(`${key}:${n}`);
  const replies = await pipeline.exec();
  assert.deepEqual(replies, Array.from({ length: 1000 }, (_, n) => [null, n % 2 ? String((n - 1) / 2) : "OK"]));
  const [[none], [error], [, last]] = await redis.pipeline().set(`${key}:t`, "t").incr(`${key}:t`).get(`${key}:t`).exec();
  assert.equal(none, null);
  assert.match(error.message, /not an integer/);
  assert.equal(last, "t");
}

async function transactions(redis, key) {
  assert.deepEqual(await redis.multi().set(`${key}:a`, "1").incr(`${key}:a`).exec(), [[null, "OK"], [null, 2]]);
  assert.equal(await redis.multi({ pipeline: false }), "OK");
  assert.equal(await redis.incr(`${key}:a`), "QUEUED");
  assert.deepEqual(await redis.exec(), [[null, 3]]);
  await redis.watch(`${key}:a`);
  await redis.set(`${key}:a`, "changed");
  assert.equal(await redis.multi().set(`${key}:a`, "mine").exec(), null);
  assert.equal(await redis.get(`${key}:a`), "changed");
  await assert.rejects(redis.multi().set(`${key}:a`, "mine").call("NOTHING").exec(), /EXECABORT/);
  assert.equal(await redis.get(`${key}:a`), "changed");
}

async function published(redis, key, make) {
  const subscriber = make();
  assert.equal(await subscriber.subscribe(`${key}:a`, `${key}:b`), 2);
  const message = once(subscriber, "message");
  assert.equal(await redis.publish(`${key}:b`, "news"), 1);
  assert.deepEqual(await message, [`${key}:b`, "news"]);
  assert.equal(await subscriber.unsubscribe(`${key}:a`), 1);
  assert.equal(await redis.publish(`${key}:a`, "news"), 0);
  assert.equal(await subscriber.unsubscribe(), 0);
  // It is an ordinary connection again.
  assert.equal(await subscriber.set(`${key}:s`, "1"), "OK");
  await subscriber.quit();
}

async function blocking(redis, key, make) {
  const waiting = Array.from({ length: 5 }, make);
  const popped = waiting.map((one) => one.blpop(`${key}:none`, `${key}:q`, 30));
  for (const value of ["a", "b", "c", "d", "e"]) await redis.rpush(`${key}:q`, value);
  const got = (await Promise.all(popped)).map(([list, value]) => [list, value]).sort();
  assert.deepEqual(got, ["a", "b", "c", "d", "e"].map((value) => [`${key}:q`, value]));
  assert.equal(await redis.blpop(`${key}:none`, 0.01), null);
  await Promise.all(waiting.map((one) => one.quit()));
}

async function scripts(redis, key) {
  redis.defineCommand("add", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
  assert.equal(await redis.add(`${key}:a`, 2), 2);
  assert.equal(await redis.add(`${key}:a`, 3), 5);
}

for (const [name, settings] of [["as it comes", {}], ["that says nothing of itself", { disableClientInfo: true, enableReadyCheck: false }]]) {
  const make = () => new Redis(PORT, "127.0.0.1", { retryStrategy: null, ...settings });
  for (const test of [values, pipelines, transactions, published, blocking, scripts]) {
    const redis = make();
    await test(redis, `${test.name}:${name}`, make);
    await redis.quit();
    console.log(`ioredis ${name}: ${test.name}`);
  }
}
