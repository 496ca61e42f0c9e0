/**
 * Sound and refused requests beside a plain array of bytes: every reply has the right cookie, every
 * byte of a read comes once and is the right one, a bad block is an error for itself alone, and the
 * device was asked for what the client asked for, flags and all. What was asked before a farewell is
 * done, whether or not the client stays for the answers.
 */
import { deepStrictEqual } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { clippedRanges, UnreadableError } from '../../src/base/unreadable.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeRequest } from '../../src/nbd/request.ts';
import { uint16, uint32, uint64 } from '../../src/nbd/wire.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import type { Call } from '../../test/support/nbd-memory-device.ts';
import { gate, Rig, turn, until, type Chunk, type RawClient } from '../../test/support/nbd-rig.ts';
import type { Fuzzer } from '../options.ts';

const BLOCK = 4096;
/** The device ends inside a block. */
const SIZE = 48 * BLOCK + 1536;
/** Requests under way together work on parts of their own, so that their order does not matter. */
const LANES = 6;
const LANE = 8 * BLOCK;
const PAYLOAD_MAX = 5 * BLOCK;
const REQUESTS = 40;

interface Asked {
  readonly type: number;
  readonly flags: number;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
  readonly payload: Buffer | undefined;
  /** What the client is to be told; 0: success. */
  readonly error: number;
}

/** Random bytes, zeros, or both in one payload: holes are found by looking. */
function payloadOf(random: SeededRandom, length: number): Buffer {
  const bytes = Buffer.from(random.bytes(length));
  const part = random.below(length + 1);
  const kind = random.below(10);
  if (kind < 3) bytes.fill(0, part);
  else if (kind < 6) bytes.fill(0, 0, part);
  return bytes;
}

class RequestRun {
  readonly #random: SeededRandom;
  readonly #rig: Rig;
  readonly #structured: boolean;
  readonly #model = Buffer.alloc(SIZE);
  /** Blocks that can't be read until they are written whole. */
  readonly #bad = new Set<number>();
  #expected: Partial<Call>[] = [];
  readonly #onStep: (() => void) | undefined;

  constructor(random: SeededRandom, onStep: (() => void) | undefined) {
    this.#random = random;
    this.#onStep = onStep;
    this.#structured = random.chance(0.6);
    this.#rig = new Rig({
      size: SIZE,
      requestBytesMax: PAYLOAD_MAX,
      pair: { piece: () => 1 + random.below(9000) },
    });
    const { device } = this.#rig;
    device.before = () => (random.chance(0.3) ? turn() : undefined);
    const read = device.read.bind(device);
    device.read = async (offset, target) => {
      await read(offset, target);
      this.#refuse(offset, target);
    };
  }

  /** What is good was filled in, and what is bad is zeros. */
  #refuse(offset: number, target: Uint8Array): void {
    const bad = this.#badIn({ offset, length: target.length }).toSorted((a, b) => a - b);
    if (bad.length === 0) return;
    const all = bad.map((block) => {
      const place = { offset: byteOffset(block * BLOCK), length: byteCount(BLOCK) };
      return { ...place, why: 'a planted one' };
    });
    const ranges = clippedRanges(all, offset, offset + target.length);
    for (const range of ranges) {
      const from = range.offset - offset;
      target.fill(0, from, from + range.length);
    }
    throw new UnreadableError('BLOCK_CORRUPT', ranges);
  }

  async run(): Promise<void> {
    const client = await this.#rig.session(this.#structured);
    for (let i = 0; i < REQUESTS; i++) {
      // Simple replies don't say how long they are, so those come one after the other.
      const count = this.#structured ? this.#random.between(1, LANES) : 1;
      const asked = Array.from({ length: count }, (_, lane) => this.#ask(lane));
      if (this.#random.chance(0.2)) this.#bad.add(this.#random.below(SIZE / BLOCK - 1));
      this.#rig.device.calls = [];
      this.#expected = [];
      for (const { payload, ...fields } of asked) await client.request(fields, payload);
      await this.#answers(client, asked);
      this.#compareCalls();
    }
    await this.#part(client);
    deepStrictEqual(this.#rig.device.bytes.equals(this.#model), true, 'the device is the model');
  }

  /** Says farewell behind its last requests, and is gone. */
  async #part(client: RawClient): Promise<void> {
    const asked = Array.from({ length: LANES }, (_, lane) => this.#ask(lane));
    const last = asked.flatMap(({ payload, ...fields }) => [
      encodeRequest(fields),
      payload ?? Buffer.alloc(0),
    ]);
    const { device, server } = this.#rig;
    const door = gate();
    device.before = async () => {
      await door.opened;
      for (let left = this.#random.below(6); left > 0; left -= 1) await turn();
    };
    await client.send(...last, encodeRequest({ type: nbd.NBD_CMD_DISC, cookie: 0 }));
    await until(() => client.socket.unheardBytes === 0, 'the farewell is heard');
    client.socket.destroy();
    door.open();
    await until(() => server.connections === 0, 'the connection is gone');
    assert(device.openCount === 0, 'the export was closed');
    assert(server.budget.used === 0, 'nothing is held in the end');
    for (const one of asked) this.#happened(one);
  }

  #ask(lane: number): Asked {
    const random = this.#random;
    this.#onStep?.();
    const type = random.pick([
      nbd.NBD_CMD_READ,
      nbd.NBD_CMD_READ,
      nbd.NBD_CMD_WRITE,
      nbd.NBD_CMD_WRITE,
      nbd.NBD_CMD_TRIM,
      nbd.NBD_CMD_WRITE_ZEROES,
      nbd.NBD_CMD_FLUSH,
    ]);
    const cookie = 1 + random.below(2 ** 20) * 2 ** 32 + lane * 2 ** 24 + random.below(2 ** 20);
    let flags = random.chance(0.3) ? nbd.NBD_CMD_FLAG_FUA : 0;
    if (type === nbd.NBD_CMD_WRITE_ZEROES && random.chance(0.4)) flags |= nbd.NBD_CMD_FLAG_NO_HOLE;
    if (type === nbd.NBD_CMD_FLUSH) {
      return { type, flags: 0, cookie, offset: 0, length: 0, payload: undefined, error: 0 };
    }
    const isOutside = random.chance(0.1);
    const isLong = random.chance(0.05);
    const length = isLong ? PAYLOAD_MAX + 1 : 1 + random.below(PAYLOAD_MAX);
    const offset = isOutside
      ? SIZE - random.below(length)
      : lane * LANE + random.below(LANE - Math.min(length, LANE) + 1);
    const isWrite = type === nbd.NBD_CMD_WRITE;
    const payload = isWrite ? payloadOf(random, length) : undefined;
    return { type, flags, cookie, offset, length, payload, error: errorOf(type, offset, length) };
  }

  async #answers(client: RawClient, asked: readonly Asked[]): Promise<void> {
    const open = new Map(asked.map((one) => [one.cookie, { one, got: new Map<number, number>() }]));
    while (open.size > 0) {
      const only = asked.length === 1 ? asked[0] : undefined;
      const isRead = only?.type === nbd.NBD_CMD_READ && !this.#structured;
      const chunk = await client.chunk(isRead ? only.length : 0);
      const found = open.get(chunk.cookie);
      assert(found !== undefined, 'a reply has the cookie of a request that waits');
      const { one, got } = found;
      if (chunk.kind === 'simple') this.#simple(one, chunk);
      else this.#structuredChunk(one, chunk, got);
      if (!chunk.done) continue;
      open.delete(chunk.cookie);
      if (chunk.kind === 'chunk') this.#wholeRead(one, got, chunk);
      this.#happened(one);
    }
  }

  #simple(one: Asked, chunk: Chunk): void {
    const isRead = one.type === nbd.NBD_CMD_READ;
    assert(!isRead || !this.#structured, 'a read is answered in chunks when that was agreed on');
    const isBad = isRead && one.error === 0 && this.#badIn(one).length > 0;
    const expected = isBad ? nbd.NBD_ERRORS.EIO : one.error;
    assert(chunk.error === expected, `a reply says what happened: ${chunk.error}, ${expected}`);
    if (isRead && expected === 0) {
      const content = this.#model.subarray(one.offset, one.offset + one.length);
      assert(chunk.payload.equals(content), 'a read gives what was written');
    }
  }

  /** @param got - for each piece that came: where it began, and where it ends */
  #structuredChunk(one: Asked, chunk: Chunk, got: Map<number, number>): void {
    const { type, payload } = chunk;
    if (type === nbd.NBD_REPLY_TYPE_NONE) return;
    if (type === nbd.NBD_REPLY_TYPE_ERROR) {
      assert(chunk.error === one.error && one.error !== 0, 'a refusal says why');
      return;
    }
    const isError = type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET;
    const at = isError ? 6 + uint16(payload, 4) : 0;
    const offset = uint64(payload, at) ?? -1;
    if (isError) {
      assert(chunk.error === nbd.NBD_ERRORS.EIO, 'a bad block is EIO');
      assert(this.#bad.has(Math.floor(offset / BLOCK)), 'an error is for a bad block');
      const end = Math.min((Math.floor(offset / BLOCK) + 1) * BLOCK, one.offset + one.length);
      addPiece(got, offset, end);
      return;
    }
    const isHole = type === nbd.NBD_REPLY_TYPE_OFFSET_HOLE;
    assert(isHole || type === nbd.NBD_REPLY_TYPE_OFFSET_DATA, 'a chunk is of a known type');
    const data = isHole ? Buffer.alloc(uint32(payload, 8)) : payload.subarray(8);
    assert(data.length > 0 && offset >= one.offset, 'a piece lies in its request');
    assert(offset + data.length <= one.offset + one.length, 'a piece ends in its request');
    const isBad = this.#badIn({ offset, length: data.length }).length > 0;
    assert(!isBad, 'nothing is said of what a bad block holds');
    const content = this.#model.subarray(offset, offset + data.length);
    assert(data.equals(content), 'a piece holds what was written there');
    addPiece(got, offset, offset + data.length);
  }

  #wholeRead(one: Asked, got: ReadonlyMap<number, number>, last: Chunk): void {
    if (one.type !== nbd.NBD_CMD_READ || one.error !== 0) {
      assert(one.error === 0 || last.error === one.error, 'a refused request is not answered well');
      return;
    }
    let at = one.offset;
    for (const [start, end] of [...got].toSorted(([a], [b]) => a - b)) {
      assert(start === at, 'every byte of a read comes once');
      at = end;
    }
    assert(at === one.offset + one.length, 'a read comes whole');
  }

  #badIn({ offset, length }: { readonly offset: number; readonly length: number }): number[] {
    return [...this.#bad].filter(
      (block) => block * BLOCK < offset + length && offset < (block + 1) * BLOCK,
    );
  }

  /** The request was done: the model follows, and the device must have been asked the same. */
  #happened({ type, flags, offset, length, payload, error }: Asked): void {
    if (error !== 0) return;
    const fua = (flags & nbd.NBD_CMD_FLAG_FUA) !== 0;
    const end = offset + length;
    switch (type) {
      case nbd.NBD_CMD_WRITE:
        payload?.copy(this.#model, offset);
        this.#expected.push({ kind: 'write', offset, length, fua, allocate: false });
        break;
      case nbd.NBD_CMD_TRIM: {
        const from = Math.ceil(offset / BLOCK) * BLOCK;
        const to = Math.floor(end / BLOCK) * BLOCK;
        if (to > from) this.#model.fill(0, from, to);
        this.#expected.push({ kind: 'trim', offset, length, fua, allocate: false });
        break;
      }
      case nbd.NBD_CMD_WRITE_ZEROES: {
        this.#model.fill(0, offset, end);
        const allocate = (flags & nbd.NBD_CMD_FLAG_NO_HOLE) !== 0;
        this.#expected.push({ kind: 'zero', offset, length, fua, allocate });
        break;
      }
      case nbd.NBD_CMD_FLUSH:
        this.#expected.push({ kind: 'flush', offset: 0, length: 0, fua: false, allocate: false });
        break;
      default:
        return;
    }
    for (const block of this.#bad) {
      if (offset <= block * BLOCK && (block + 1) * BLOCK <= end) this.#bad.delete(block);
    }
  }

  #compareCalls(): void {
    const got = (this.#rig.device.calls ?? []).filter(({ kind }) => kind !== 'read');
    const order = (calls: readonly Partial<Call>[]): string[] =>
      calls
        .map(({ kind, offset, length, fua, allocate }) =>
          JSON.stringify({ kind, offset, length, fua, allocate }),
        )
        .toSorted();
    deepStrictEqual(order(got), order(this.#expected), 'the device is asked what was asked');
  }
}

function addPiece(got: Map<number, number>, start: number, end: number): void {
  assert(!got.has(start), 'a piece comes once');
  got.set(start, end);
}

function errorOf(type: number, offset: number, length: number): number {
  const isChange = type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES;
  if (offset + length > SIZE) return isChange ? nbd.NBD_ERRORS.ENOSPC : nbd.NBD_ERRORS.EINVAL;
  const isPayload = type === nbd.NBD_CMD_READ || type === nbd.NBD_CMD_WRITE;
  return isPayload && length > PAYLOAD_MAX ? nbd.NBD_ERRORS.EOVERFLOW : 0;
}

export const fuzzer: Fuzzer = {
  name: 'nbd-requests',
  async main({ seed, runs, onStep }) {
    for (let i = 0; i < runs; i++) {
      await new RequestRun(new SeededRandom((seed + i) >>> 0).fork('requests'), onStep).run();
    }
  },
};
