/**
 * Streams of `varve send`, and tokens: what was put together comes apart as it was, in pieces of any
 * length; what was changed on the way is refused with a code, and nothing of it passes that was not
 * sent in that place.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { uuidText } from '../../src/base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  byteCount,
  generation,
  micros,
} from '../../src/base/units.ts';
import { sendHeader, sendRecord, sendToken } from '../../src/format/send-layouts.ts';
import { StreamDecoder, StreamEncoder, type StreamPart } from '../../src/format/send-stream.ts';
import {
  decodeStreamHeader,
  decodeToken,
  encodeStreamHeader,
  encodeToken,
  streamSeed,
  type StreamHeader,
  type StreamPlace,
} from '../../src/format/send.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import type { Fuzzer } from '../options.ts';
import { mutateFields, reseal } from './mutation.ts';

function headerOf(random: SeededRandom, place: StreamPlace | undefined): StreamHeader {
  const to = { lineage: uuidText(random.bytes(16)), generation: generation(random.below(2 ** 40)) };
  const from = { lineage: uuidText(random.bytes(16)), generation: generation(random.below(9)) };
  const isWhole = random.chance(0.5) || from.generation > to.generation;
  return {
    identity: {
      volume: uuidText(random.bytes(16)),
      size: byteCount(1 + random.below(600 * BLOCK_BYTES)),
      from: isWhole ? undefined : from,
      to,
    },
    place,
    toWallUs: micros(random.below(2 ** 50)),
    dataBytes: byteCount(random.below(2 ** 40)),
    label: random.pick(['', 'monday', 'ü-€']),
  };
}

interface Made {
  readonly parts: readonly Uint8Array[];
  /** What each part says, in one text. */
  readonly said: readonly string[];
}

function partText(part: StreamPart): string {
  switch (part.kind) {
    case 'header':
      return `header ${JSON.stringify(part.header)}`;
    case 'data':
      return `data ${part.block} ${part.bytes.length} ${crc32c(part.bytes)}`;
    case 'hole':
    case 'allocated':
      return `${part.kind} ${part.block} ${part.count}`;
    case 'seal':
    case 'end':
      return part.kind;
  }
}

function streamOf(random: SeededRandom, header: StreamHeader): Made {
  const encoder = new StreamEncoder(header);
  const parts = [encoder.header];
  const said = [`header ${JSON.stringify(header)}`];
  const blocks = Math.ceil(header.identity.size / BLOCK_BYTES);
  for (let at = random.below(4); at < blocks;) {
    const kind = random.pick(['data', 'data', 'hole', 'allocated', 'seal'] as const);
    const block = blockOf(at);
    if (kind === 'seal') {
      parts.push(encoder.seal('seal'));
      said.push('seal');
      continue;
    }
    const count = 1 + random.below(Math.min(random.pick([2, 40]), blocks - at));
    if (kind === 'data') {
      const bytes = random.bytes(count * BLOCK_BYTES);
      parts.push(encoder.data(block, bytes));
      said.push(`data ${block} ${bytes.length} ${crc32c(bytes)}`);
    } else {
      parts.push(encoder.zeros(kind, block, count));
      said.push(`${kind} ${block} ${count}`);
    }
    at += count + random.below(60);
  }
  parts.push(encoder.seal('end'));
  said.push('end');
  return { parts, said };
}

/** What the decoder gives out of the bytes, and whether it took them all. */
function heardIn(random: SeededRandom, bytes: Uint8Array): { said: string[]; isWhole: boolean } {
  const decoder = new StreamDecoder();
  const said: string[] = [];
  try {
    for (let at = 0; at < bytes.length;) {
      const length = 1 + random.below(random.pick([7, 500, 90_000]));
      for (const part of decoder.push(bytes.subarray(at, at + length))) said.push(partText(part));
      at += length;
    }
    return { said, isWhole: decoder.ended };
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return { said, isWhole: false };
  }
}

interface Changed {
  readonly bytes: Uint8Array;
  /** A record has a good checksum and is not what was sent: its seal tells. */
  readonly isForged: boolean;
}

/** A part changed, left out, repeated, or put elsewhere; or the end cut off. */
function changed(random: SeededRandom, { parts }: Made, header: StreamHeader): Changed {
  const list = parts.map((part) => Uint8Array.from(part));
  const at = random.below(list.length);
  const [one, two] = [list[at], list[random.below(list.length)]];
  assert(one !== undefined && two !== undefined, 'a stream has parts');
  const way = random.below(7);
  let isForged = false;
  if (way === 0) one[random.below(one.length)] = random.below(256);
  else if (way === 1) list.splice(at, 1);
  else if (way === 2) list.splice(at, 0, one);
  else if (way === 3) list[at] = two;
  else if (way === 4 && at === 0) {
    mutateFields(random, sendHeader, one);
    reseal(one, one.length);
  } else if (way === 4 || way === 6) {
    if (way === 4 || one.length === sendRecord.size) mutateFields(random, sendRecord, one);
    else one[random.between(sendRecord.size, one.length - 1)] = random.below(256);
    isForged = at > 0 && random.chance(0.7);
    if (isForged) {
      const sum = crc32c(one.subarray(8), streamSeed(header.identity));
      new DataView(one.buffer).setUint32(4, sum, true);
    }
  }
  const whole = Buffer.concat(list);
  const bytes = way === 5 ? whole.subarray(0, random.below(whole.length)) : whole;
  return { bytes, isForged };
}

function streams(random: SeededRandom): void {
  const header = headerOf(random, undefined);
  const made = streamOf(random, header);
  const whole = Buffer.concat(made.parts);
  const heard = heardIn(random, whole);
  assert(heard.isWhole && heard.said.join() === made.said.join(), 'a stream survives');
  const { bytes, isForged } = changed(random, made, header);
  const other = heardIn(random, bytes);
  if (Buffer.compare(bytes, whole) === 0) return;
  // A header that was sealed again may tell of another label, time or amount.
  const isHeader = Buffer.compare(bytes.subarray(0, 256), whole.subarray(0, 256)) !== 0;
  const passed = other.said.slice(1).every((text, i) => made.said[i + 1] === text);
  assert(passed || isHeader || isForged, 'what passes was sent in that place');
  assert(!other.isWhole || isHeader, 'what was changed does not come to its end');
}

function headers(random: SeededRandom): void {
  const digest = Buffer.from(random.bytes(32)).toString('hex');
  const place = { records: random.below(1000), nextBlock: blockOf(0), digest };
  const header = headerOf(random, random.chance(0.5) ? place : undefined);
  const bytes = encodeStreamHeader(header);
  const back = decodeStreamHeader(bytes);
  assert(JSON.stringify(back) === JSON.stringify(header), 'a header survives');
  mutateFields(random, sendHeader, bytes);
  reseal(bytes, bytes.length);
  try {
    const found = decodeStreamHeader(bytes);
    assert(Buffer.compare(encodeStreamHeader(found), bytes) === 0, 'a header has one form');
  } catch (error) {
    if (!isVarveError(error)) throw error;
  }
}

function tokens(random: SeededRandom): void {
  const digest = Buffer.from(random.bytes(32)).toString('hex');
  const place = { records: random.below(1000), nextBlock: blockOf(random.below(1000)), digest };
  const { volume, from, to } = headerOf(random, undefined).identity;
  const token = { volume, from, to, place };
  const text = encodeToken(token);
  assert(JSON.stringify(decodeToken(text)) === JSON.stringify(token), 'a token survives');
  const bytes = Buffer.from(text, 'base64url');
  mutateFields(random, sendToken, bytes);
  reseal(bytes, bytes.length);
  try {
    const found = decodeToken(bytes.toString('base64url'));
    assert(encodeToken(found) === bytes.toString('base64url'), 'a token has one form');
  } catch (error) {
    if (!isVarveError(error)) throw error;
  }
}

export const fuzzer: Fuzzer = {
  name: 'format-send-streams',
  main: ({ seed, runs, onStep }) => {
    const random = new SeededRandom(seed >>> 0).fork('send-streams');
    for (let i = 0; i < runs; i++) {
      onStep?.();
      streams(random);
      headers(random);
      tokens(random);
      heardIn(random, random.bytes(random.below(2000)));
    }
  },
};
