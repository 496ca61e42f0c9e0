/**
 * qcow2 images with fields and entries changed: an image gives bytes or an error with a code, looks
 * at nothing beyond the file, and does work that is bounded by what is asked of it. An image that
 * was not changed gives what was put into it.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import type { BaseImage } from '../../src/image/base-image.ts';
import { openImage } from '../../src/image/open-image.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import { BufferFiles } from '../../test/support/buffer-device.ts';
import { buildQcow2, type Built, type Cluster } from '../../test/support/qcow2-builder.ts';
import type { Fuzzer } from '../options.ts';

const PATH = '/top';
const CODES: readonly string[] = ['IMAGE_CORRUPT', 'IMAGE_UNSUPPORTED', 'FILE_BAD'];
const READ_BYTES_MAX = 64 * 1024;
/** Where header fields begin, with their sizes. Source: docs/interop/qcow2.txt of qemu. */
const FIELDS: readonly (readonly [at: number, size: number])[] = [
  [4, 4],
  [8, 8],
  [16, 4],
  [20, 4],
  [24, 8],
  [32, 4],
  [36, 4],
  [40, 8],
  [48, 8],
  [60, 4],
  [72, 8],
  [80, 8],
  [96, 4],
  [100, 4],
  [104, 4],
  [108, 4],
];

function clustersOf(random: SeededRandom, clusterBytes: number): Cluster[] {
  return Array.from({ length: random.between(1, 140) }, (): Cluster => {
    const kind = random.pick(['none', 'zero', 'data', 'data', 'packed'] as const);
    if (kind === 'none' || kind === 'zero') return { kind };
    const bytes = new Uint8Array(clusterBytes);
    // Some of it packs well, some not at all.
    const part = bytes.subarray(0, random.between(1, clusterBytes));
    if (random.chance(0.5)) random.fill(part);
    else part.fill(random.below(256));
    return { kind, bytes };
  });
}

/** Eight bytes as a bad disk, or somebody who means it, could have them. */
function strange(random: SeededRandom, now: bigint, fileBytes: number): bigint {
  switch (random.below(6)) {
    case 0:
      return now ^ (1n << BigInt(random.below(64)));
    case 1:
      return now + BigInt(512 * random.between(-4, 4));
    case 2:
      return BigInt(512 * random.below(Math.ceil(fileBytes / 512) + 2));
    case 3:
      return BigInt(random.next32()) * 2n ** BigInt(random.below(33));
    case 4:
      return random.pick([0n, 1n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n - 512n]);
    default:
      return now | (1n << 62n);
  }
}

function put(bytes: Buffer, at: number, size: number, value: bigint): void {
  if (at + size > bytes.length) return;
  if (size === 8) bytes.writeBigUInt64BE(BigInt.asUintN(64, value), at);
  else bytes.writeUInt32BE(Number(BigInt.asUintN(32, value)), at);
}

/** Somewhere in a structure, seldom anywhere. */
function change(random: SeededRandom, { bytes, l1, l1Entries, l2 }: Built): void {
  const where = random.below(8);
  if (where < 3) {
    const [at, size] = random.pick(FIELDS);
    if (at + size > bytes.length) return;
    const now = size === 8 ? bytes.readBigUInt64BE(at) : BigInt(bytes.readUInt32BE(at));
    put(bytes, at, size, strange(random, now, bytes.length));
    return;
  }
  if (where === 7) {
    bytes[random.below(bytes.length)] = random.below(256);
    return;
  }
  const at = where === 3 ? l1 + 8 * random.below(l1Entries) : l2 + 8 * random.below(64);
  if (at + 8 <= bytes.length) {
    put(bytes, at, 8, strange(random, bytes.readBigUInt64BE(at), bytes.length));
  }
}

/** Undefined: refused, with a code that says so. */
async function believed<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    assert(CODES.includes(error.code), `an image is refused as such, not by ${error.code}`);
    return undefined;
  }
}

async function look(random: SeededRandom, image: BaseImage): Promise<void> {
  for (let looks = 0; looks < 4; looks += 1) {
    const length = Math.min(image.size, random.between(1, READ_BYTES_MAX));
    const from = looks === 0 ? 0 : looks === 1 ? image.size - length : undefined;
    const offset = byteOffset(from ?? random.below(image.size - length + 1));
    await believed(image.read(offset, new Uint8Array(length)));
    const runs = await believed(image.extents(offset, byteCount(length), 16));
    if (runs === undefined || length === 0) continue;
    const sum = runs.reduce((bytes, run) => bytes + run.length, 0);
    assert(sum > 0 && sum <= length && runs.length <= 16, 'runs lie inside what was asked');
  }
}

async function trial(random: SeededRandom): Promise<boolean> {
  const clusterBits = random.pick([9, 9, 10, 12]);
  const clusters = clustersOf(random, 2 ** clusterBits);
  const isBased = random.chance(0.3);
  const base = random.bytes(random.between(1, 20_000));
  const built = buildQcow2({
    clusterBits,
    clusters,
    ...(isBased ? { backing: { name: 'base', format: random.pick(['raw', 'raw', 'qcow2']) } } : {}),
  });
  const isWhole = random.chance(0.2);
  if (!isWhole) for (let left = random.between(1, 3); left > 0; left -= 1) change(random, built);
  const end = !isWhole && random.chance(0.1) ? random.below(built.bytes.length) : undefined;
  const files = new BufferFiles({ [PATH]: built.bytes.subarray(0, end), '/base': base });
  const image = await believed(openImage(files.openDevice, PATH, 'qcow2'));
  if (image === undefined) {
    assert(
      files.opened.every(({ isOpen }) => !isOpen),
      'what is refused is closed',
    );
    return false;
  }
  if (isWhole) {
    const found = Buffer.alloc(image.size);
    await image.read(byteOffset(0), found);
    const expected = Buffer.alloc(image.size);
    if (isBased) expected.set(base.subarray(0, expected.length));
    for (const [n, cluster] of clusters.entries()) {
      const at = n * 2 ** clusterBits;
      if ('bytes' in cluster) expected.set(cluster.bytes, at);
      else if (cluster.kind === 'zero') expected.fill(0, at, at + 2 ** clusterBits);
    }
    assert(found.equals(expected), 'an image gives what was put into it');
  }
  if (image.size > 0) await look(random, image);
  await image.close();
  assert(
    files.opened.every(({ isOpen }) => !isOpen),
    'what is closed is closed to the bottom',
  );
  return true;
}

export const fuzzer: Fuzzer = {
  name: 'image-qcow2',
  runs: 2000,
  async main({ seed, runs, onStep }) {
    const random = new SeededRandom(seed >>> 0);
    let opened = 0;
    for (let run = 0; run < runs; run += 1) {
      if (await trial(random)) opened += 1;
      onStep?.();
    }
    return { images: runs, opened };
  },
};
