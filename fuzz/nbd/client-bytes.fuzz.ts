/**
 * Our client and a server that means harm: handshakes and replies with other values in their
 * fields, cut and stretched, or plain noise, and an end at any point. Every request settles with a
 * value or an error with a code, a read gives only what came, and what the client allocates has
 * its limit, whatever lengths it is told.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { NbdClient, NbdError } from '../../src/nbd/client.ts';
import {
  encodeContext,
  encodeGreeting,
  encodeInfo,
  encodeReply,
  encodeServer,
} from '../../src/nbd/options.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import type { SocketEvents } from '../../src/nbd/socket.ts';
import { putUint16, putUint32, putUint64 } from '../../src/nbd/wire.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import { SimNetwork } from '../../test/sim/sim-network.ts';
import { SimWorld } from '../../test/sim/sim-world.ts';
import { measured, POISON } from '../../test/support/allocations.ts';
import { sum, type Counts, type Fuzzer } from '../options.ts';

const REQUESTS = 6;
const READ_BYTES = 300;
/** A chunk that is no data has 2^20 descriptors at most. */
const ALLOCATION_MAX = 9 * 2 ** 20;
const INTERESTING = [0, 1, 2, 4, 8, 9, 12, 16, 300, 4096, 65_536, 2 ** 31, 2 ** 32 - 1];
const TYPES = [0, 1, 2, 3, 5, 6, 0x8000, 0x8001, 0x8002, 0xffff];
const FACTS = {
  size: 2 ** 20,
  flags: 0x1ff,
  canonicalName: 'disk',
  description: 'a disk',
  payloadBytesMax: 2 ** 25,
};

function data(random: SeededRandom, length: number): Buffer {
  return Buffer.from(random.bytes(length));
}

/** Never the byte that unwritten memory holds. */
function withoutPoison(bytes: Buffer): Buffer {
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] === POISON) bytes[at] = 0;
  return bytes;
}

function handshakeReplies(random: SeededRandom): Buffer[] {
  const infos = [0, 1, 2, 3].map((info) => {
    return encodeReply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, encodeInfo(info, FACTS));
  });
  const context = encodeContext(random.pick([0, 1, 7]), 'base:allocation');
  return [
    encodeGreeting(),
    encodeReply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ACK),
    encodeReply(nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_REP_META_CONTEXT, context),
    encodeReply(nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_REP_ACK),
    ...random.shuffle(infos),
    encodeReply(nbd.NBD_OPT_GO, nbd.NBD_REP_ACK),
  ];
}

function listReplies(random: SeededRandom): Buffer[] {
  const names = Array.from({ length: random.below(5) }, (_, i) => {
    return encodeReply(nbd.NBD_OPT_LIST, nbd.NBD_REP_SERVER, encodeServer(`disk-${i}`, 'a disk'));
  });
  return [
    encodeGreeting(),
    ...names,
    encodeReply(nbd.NBD_OPT_LIST, nbd.NBD_REP_ACK),
    encodeReply(nbd.NBD_OPT_ABORT, nbd.NBD_REP_ACK),
  ];
}

function simple(random: SeededRandom, cookie: number): Buffer {
  const head = Buffer.alloc(16);
  putUint32(head, 0, nbd.NBD_SIMPLE_REPLY_MAGIC);
  putUint32(head, 4, random.pick([0, 0, 5, 22, 2 ** 32 - 1]));
  putUint64(head, 8, cookie);
  return Buffer.concat([head, data(random, random.chance(0.5) ? READ_BYTES : 0)]);
}

/** A structured reply: mostly one that makes sense for a read. */
function chunk(random: SeededRandom, cookie: number): Buffer {
  const type = random.chance(0.6) ? random.pick([1, 2]) : random.pick(TYPES);
  // Thirds of a read, so that parts of one reply fit together, or overlap and fit in number.
  const third = READ_BYTES / 3;
  const length = random.chance(0.8) ? random.pick([1, 2, 3]) * third : random.below(READ_BYTES);
  const offset = random.chance(0.8) ? random.below(3) * third : random.below(READ_BYTES);
  let payload = data(random, random.pick([0, 4, 6, 8, 12, 20]));
  if (type === 1) {
    payload = Buffer.concat([Buffer.alloc(8), data(random, length)]);
    putUint64(payload, 0, offset);
  } else if (type === 2) {
    payload = Buffer.alloc(12);
    putUint64(payload, 0, offset);
    putUint32(payload, 8, length);
  }
  const head = Buffer.alloc(20);
  putUint32(head, 0, nbd.NBD_STRUCTURED_REPLY_MAGIC);
  putUint16(head, 4, random.pick([0, 1, 1, 0xffff]));
  putUint16(head, 6, type);
  putUint64(head, 8, cookie);
  const told = random.chance(0.9) ? payload.length : random.pick(INTERESTING);
  putUint32(head, 16, told);
  return Buffer.concat([head, payload]);
}

function transmission(random: SeededRandom): Buffer[] {
  return Array.from({ length: random.below(3 * REQUESTS) }, () => {
    const cookie = random.between(random.chance(0.1) ? 0 : 1, REQUESTS);
    return random.chance(0.3) ? simple(random, cookie) : chunk(random, cookie);
  });
}

function spoil(random: SeededRandom, bytes: Buffer, from: number): Buffer {
  if (random.chance(0.4) || bytes.length <= from) return bytes;
  for (let left = random.between(1, 3); left > 0; left -= 1) {
    const at = random.between(from, bytes.length - 1);
    if (random.chance(0.5)) bytes[at] = random.below(256) & 0x7f;
    else if (at + 4 <= bytes.length) bytes.writeUInt32BE(random.pick(INTERESTING), at);
  }
  return random.chance(0.3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

/** All that the server ever says: at once, and when it was asked something. */
function speech(random: SeededRandom, isList: boolean): readonly Buffer[] {
  if (random.chance(0.05)) return [data(random, random.below(2000))];
  const begin = Buffer.concat(isList ? listReplies(random) : handshakeReplies(random));
  const rest = Buffer.concat(isList ? [] : transmission(random));
  const isHandshakeSpared = random.chance(0.7);
  const whole = Buffer.concat([begin, rest]);
  const all = withoutPoison(spoil(random, whole, isHandshakeSpared ? begin.length : 0));
  return [all.subarray(0, begin.length), all.subarray(begin.length)];
}

async function outcome(work: Promise<unknown>): Promise<'value' | 'error'> {
  try {
    const value = await work;
    if (value instanceof Uint8Array) {
      assert(!value.includes(POISON), 'a read gives only what came');
    }
    return 'value';
  } catch (error) {
    if (!isVarveError(error) && !(error instanceof NbdError)) throw error;
    return 'error';
  }
}

async function talk(client: NbdClient): Promise<Counts> {
  const requests = [
    client.read(0, READ_BYTES),
    client.read(0, READ_BYTES),
    client.status(0, 65_536),
    client.write(0, Buffer.alloc(100)),
    client.flush(),
    client.trim(0, 4096),
  ];
  const all = await Promise.all(requests.map(outcome));
  client.destroy();
  return {
    requests: all.length,
    answered: all.filter((one) => one === 'value').length,
  };
}

async function one(random: SeededRandom, seed: number): Promise<Counts> {
  const world = new SimWorld(seed, { stepsMax: 200_000 });
  const { server, client: socket } = new SimNetwork(world).pair();
  const deaf: SocketEvents = {
    data: () => undefined,
    target: () => undefined,
    end: () => undefined,
    close: () => undefined,
  };
  server.start(deaf);
  const isList = random.chance(0.15);
  const left = speech(random, isList).filter(({ length }) => length > 0);
  const say = (): void => {
    const next = left.shift();
    if (server.isGone) return;
    if (next !== undefined)
      server.write([next], () => world.schedule(random.pick([0, 50_000, 50_000]), say));
    else if (random.chance(0.5)) server.end();
    else server.destroy();
  };
  say();
  let counts: Counts = { speeches: 1 };
  const { allocations } = await measured(() =>
    world.run(async () => {
      if (isList) {
        await outcome(NbdClient.list(socket));
        return;
      }
      const connecting = NbdClient.connect(socket, {
        exportName: 'disk',
        metaContexts: ['base:allocation'],
      });
      if ((await outcome(connecting)) === 'error') return;
      counts = sum(counts, await talk(await connecting));
    }),
  );
  assert(allocations.largest <= ALLOCATION_MAX, 'what a client allocates has its limit');
  return counts;
}

export const fuzzer: Fuzzer = {
  name: 'nbd-client-bytes',
  runs: 500,
  async main({ seed, runs }) {
    let counts: Counts = {};
    for (let run = 0; run < runs; run += 1) {
      const each = (seed + run) >>> 0;
      try {
        counts = sum(counts, await one(new SeededRandom(each).fork('speech'), each));
      } catch (error) {
        const what = error instanceof Error ? error.stack : String(error);
        throw new Error(`seed ${each}: ${what}`, { cause: error });
      }
    }
    return counts;
  },
};
