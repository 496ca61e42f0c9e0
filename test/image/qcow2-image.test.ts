/** qcow2 images made by hand, whole and damaged, and chains of them. */
import { describe, expect, test } from 'vitest';
import { isVarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { STATE_HOLE, STATE_ZERO } from '../../src/device/block-device.ts';
import type { BaseImage } from '../../src/image/base-image.ts';
import { openImage, probeImage } from '../../src/image/open-image.ts';
import { BufferFiles } from '../support/buffer-device.ts';
import { buildQcow2, type BuildOptions, type Cluster } from '../support/qcow2-builder.ts';

const HOLE = STATE_HOLE | STATE_ZERO;
const PATH = '/images/disk.qcow2';

function filled(bytes: number, value: number): Uint8Array {
  return Buffer.from(Array.from({ length: bytes }, (_, at) => (value + Math.floor(at / 7)) % 256));
}

/** One of each kind in turn, over more than one table. */
function clustersOf(clusterBytes: number, count: number): Cluster[] {
  return Array.from({ length: count }, (_, n): Cluster => {
    const bytes = filled(clusterBytes, n);
    const kinds = ['data', 'data', 'packed', 'zero', 'none', 'packed', 'none'] as const;
    const kind = kinds[n % kinds.length] ?? 'none';
    return kind === 'data' || kind === 'packed' ? { kind, bytes } : { kind };
  });
}

function contentOf(clusters: readonly Cluster[], clusterBytes: number): Buffer {
  return Buffer.concat(
    clusters.map((cluster) => ('bytes' in cluster ? cluster.bytes : Buffer.alloc(clusterBytes))),
  );
}

async function open(bytes: Uint8Array, more: Record<string, Uint8Array> = {}): Promise<BaseImage> {
  return openImage(new BufferFiles({ [PATH]: bytes, ...more }).openDevice, PATH, 'qcow2');
}

async function readAll(image: BaseImage): Promise<Buffer> {
  const bytes = Buffer.alloc(image.size, 0xaa);
  await image.read(byteOffset(0), bytes);
  return bytes;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return error.code;
  }
}

describe('a qcow2 image', () => {
  const shapes: BuildOptions[] = [9, 12, 16, 21].flatMap((clusterBits) => {
    const count = clusterBits === 21 ? 6 : clusterBits === 9 ? 150 : 30;
    const clusters = clustersOf(2 ** clusterBits, count);
    const v2 = clusters.map((one): Cluster => (one.kind === 'zero' ? { kind: 'none' } : one));
    return [
      { clusterBits, clusters },
      { clusterBits, version: 2 as const, clusters: v2 },
    ];
  });

  test.each(shapes)('of clusters of 2^$clusterBits bytes, version $version', async (shape) => {
    const clusterBytes = 2 ** (shape.clusterBits ?? 0);
    const built = buildQcow2(shape);
    const image = await open(built.bytes);
    const expected = contentOf(shape.clusters, clusterBytes);
    expect((await readAll(image)).equals(expected)).toBe(true);
    for (const [from, length] of [
      [1, 1],
      [clusterBytes - 3, 6],
      [2 * clusterBytes + 5, clusterBytes],
      [image.size - 7, 7],
    ] as const) {
      const part = Buffer.alloc(length);
      await image.read(byteOffset(from), part);
      expect(part.equals(expected.subarray(from, from + length)), `${from}`).toBe(true);
    }
    let at = 0;
    while (at < image.size) {
      const runs = await image.extents(byteOffset(at), byteCount(image.size - at), 3);
      expect(runs.length).toBeGreaterThan(0);
      expect(runs.length).toBeLessThanOrEqual(3);
      for (const { length, flags } of runs) {
        for (let n = at; n < at + length; n += clusterBytes) {
          const kind = shape.clusters[Math.floor(n / clusterBytes)]?.kind;
          expect(flags, `cluster at ${n}`).toBe(
            kind === 'none' ? HOLE : kind === 'zero' ? STATE_ZERO : 0,
          );
        }
        at += length;
      }
    }
    await image.close();
  });

  test('ends where its last cluster was written to', async () => {
    const { bytes } = buildQcow2({ clusters: [{ kind: 'data', bytes: filled(512, 3) }] });
    const image = await open(bytes.subarray(0, bytes.length - 100));
    const expected = Buffer.from(filled(512, 3)).fill(0, 412);
    expect((await readAll(image)).equals(expected)).toBe(true);
    const last = Buffer.alloc(10, 1);
    await image.read(byteOffset(500), last);
    expect(last.equals(Buffer.alloc(10))).toBe(true);
    const gone = await open(bytes.subarray(0, bytes.length - 512));
    expect(await codeOf(readAll(gone))).toBe('IMAGE_CORRUPT');
  });

  test('is probed only by whoever asks for it', async () => {
    const { bytes } = buildQcow2({ clusters: [] });
    const files = new BufferFiles({ '/a': bytes, '/b': Buffer.alloc(5), '/c': Buffer.alloc(0) });
    expect(await probeImage(files.openDevice, '/a')).toBe('qcow2');
    expect(await probeImage(files.openDevice, '/b')).toBe('raw');
    expect(await probeImage(files.openDevice, '/c')).toBe('raw');
    const raw = await openImage(files.openDevice, '/a', 'raw');
    expect((await readAll(raw)).equals(bytes)).toBe(true);
  });
});

describe('a qcow2 image that is refused', () => {
  const good = buildQcow2({ clusters: clustersOf(512, 20) });
  type Change = (bytes: Buffer) => void;
  const changes: [string, string, Change][] = [
    ['another magic', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(1, 0)],
    ['version 1', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt32BE(1, 4)],
    ['version 4', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt32BE(4, 4)],
    ['small clusters', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(8, 20)],
    ['large clusters', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(22, 20)],
    ['LUKS', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt32BE(2, 32)],
    ['AES', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt32BE(1, 32)],
    ['corrupt', 'IMAGE_CORRUPT', (b) => b.writeUInt8(2, 79)],
    ['an external data file', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt8(4, 79)],
    ['subclusters', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt8(16, 79)],
    ['an unknown feature', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt8(0x80, 72)],
    ['an unannounced compression', 'IMAGE_CORRUPT', (b) => b.writeUInt8(8, 79)],
    ['a long header', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(1024, 100)],
    ['a disk beyond numbers', 'IMAGE_CORRUPT', (b) => b.writeUInt8(0x40, 24)],
    ['a disk of half a sector', 'IMAGE_UNSUPPORTED', (b) => b.writeUInt8(1, 31)],
    ['a disk beyond its table', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(0x10, 24)],
    ['a table beyond the file', 'IMAGE_CORRUPT', (b) => b.writeUInt32BE(1, 40)],
    ['a table between clusters', 'IMAGE_CORRUPT', (b) => b.writeUInt8(8, 47)],
    ['a long backing name', 'IMAGE_CORRUPT', (b) => b.writeUInt8(120, 15)],
    ['an entry with strange bits', 'IMAGE_CORRUPT', (b) => b.writeUInt8(2, good.l2 + 7)],
    ['an entry beyond the file', 'IMAGE_CORRUPT', (b) => b.writeUInt8(1, good.l2 + 2)],
    ['an entry between clusters', 'IMAGE_CORRUPT', (b) => b.writeUInt16BE(0x0100, good.l2 + 6)],
    ['a table entry beyond the file', 'IMAGE_CORRUPT', (b) => b.writeUInt8(1, good.l1 + 3)],
    ['a table entry with strange bits', 'IMAGE_CORRUPT', (b) => b.writeUInt8(1, good.l1 + 7)],
    ['what is no stream', 'IMAGE_CORRUPT', (b) => b.fill(0xff, good.bytes.length - 1024)],
  ];

  test.each(changes)('for %s', async (_what, code, change) => {
    const bytes = Buffer.from(good.bytes);
    change(bytes);
    expect(await codeOf(open(bytes).then(readAll))).toBe(code);
  });

  test('for zstd, by that name', async () => {
    const bytes = Buffer.from(good.bytes);
    bytes.writeUInt32BE(112, 100);
    bytes.writeUInt8(8, 79);
    bytes.writeUInt8(1, 104);
    await expect(open(bytes)).rejects.toThrow(/zstd/);
  });

  test('for a stream that is too long, or too short', async () => {
    // In clusters of 1024 bytes, what was packed from 512, and the other way round.
    for (const [made, said] of [
      [9, 10],
      [10, 9],
    ] as const) {
      const bytes = filled(2 ** made, 1);
      const built = buildQcow2({ clusterBits: made, clusters: [{ kind: 'packed', bytes }] });
      const image = Buffer.from(
        buildQcow2({ clusterBits: said, clusters: [{ kind: 'zero' }] }).bytes,
      );
      const packed = built.bytes.subarray(built.l2 + 2 ** made);
      const at = image.length;
      const entry = (1n << 62n) | BigInt(at + 40);
      image.writeBigUInt64BE(entry, 2 ** said * 2);
      const opened = open(Buffer.concat([image, packed]));
      expect(await codeOf(opened.then(readAll)), `${made}`).toBe('IMAGE_CORRUPT');
    }
  });

  test('when it is cut off anywhere', async () => {
    for (let end = 0; end < good.bytes.length - 512; end += 97) {
      const code = await codeOf(open(good.bytes.subarray(0, end)).then(readAll));
      expect(code, `cut at ${end}`).toBe('IMAGE_CORRUPT');
    }
  });

  test('leaves no file open', async () => {
    const bad = Buffer.from(good.bytes);
    bad.writeUInt32BE(4, 4);
    const over = buildQcow2({ clusters: [], backing: { name: 'bad', format: 'qcow2' } }).bytes;
    const files = new BufferFiles({ '/images/over': over, '/images/bad': bad });
    await codeOf(openImage(files.openDevice, '/images/over', 'qcow2'));
    expect(files.opened.map(({ isOpen }) => isOpen)).toEqual([false, false]);
  });
});

describe('a chain of images', () => {
  const raw = Buffer.from(filled(512 * 6 - 100, 9));
  const middle = (name = '../raw.img', format = 'raw'): Buffer =>
    buildQcow2({
      clusters: [{ kind: 'none' }, { kind: 'zero' }, { kind: 'none' }],
      backing: { name, format },
    }).bytes;
  const top = (backing: BuildOptions['backing']): Buffer =>
    buildQcow2({
      clusters: [
        { kind: 'none' },
        { kind: 'none' },
        { kind: 'data', bytes: filled(512, 77) },
        ...Array.from({ length: 7 }, (): Cluster => ({ kind: 'none' })),
      ],
      ...(backing === undefined ? {} : { backing }),
    }).bytes;

  test('shows what lies below, with zeros behind its end', async () => {
    const files = new BufferFiles({
      '/images/disk.qcow2': top({ name: 'deep/middle.qcow2', format: 'qcow2' }),
      '/images/deep/middle.qcow2': middle(),
      '/images/raw.img': raw,
    });
    const image = await openImage(files.openDevice, PATH, 'qcow2');
    expect(image.files).toEqual([PATH, '/images/deep/middle.qcow2', '/images/raw.img']);
    const expected = Buffer.alloc(image.size);
    raw.copy(expected, 0, 0, 512);
    Buffer.from(filled(512, 77)).copy(expected, 1024);
    expect((await readAll(image)).equals(expected)).toBe(true);
    const runs = await image.extents(byteOffset(0), image.size, 100);
    expect(runs.map(({ length, flags }) => [length, flags])).toEqual([
      [512, 0],
      [512, STATE_ZERO],
      [512, 0],
      [512 * 7, HOLE],
    ]);
    await image.close();
    expect(files.opened.every(({ isOpen }) => !isOpen)).toBe(true);
  });

  test('shows a raw file that is no whole number of clusters', async () => {
    const files = new BufferFiles({
      [PATH]: top({ name: 'raw.img', format: 'raw' }),
      '/images/raw.img': raw,
    });
    const image = await openImage(files.openDevice, PATH, 'qcow2');
    const expected = Buffer.alloc(image.size);
    raw.copy(expected);
    Buffer.from(filled(512, 77)).copy(expected, 1024);
    expect((await readAll(image)).equals(expected)).toBe(true);
  });

  test.each([
    ['a file based on itself', { name: 'disk.qcow2', format: 'qcow2' }, 'IMAGE_CORRUPT'],
    ['a format not said', { name: 'raw.img' }, 'IMAGE_UNSUPPORTED'],
    ['another format', { name: 'raw.img', format: 'vmdk' }, 'IMAGE_UNSUPPORTED'],
    ['a protocol', { name: 'nbd://localhost/x', format: 'raw' }, 'IMAGE_UNSUPPORTED'],
    ['a description', { name: 'json:{"driver":"file"}', format: 'raw' }, 'IMAGE_UNSUPPORTED'],
    ['a missing file', { name: 'gone', format: 'raw' }, 'FILE_BAD'],
    ['a zero in the name', { name: 'raw.img\0', format: 'raw' }, 'IMAGE_CORRUPT'],
  ])('is refused for %s', async (_what, backing, code) => {
    expect(await codeOf(open(top(backing), { '/images/raw.img': raw }))).toBe(code);
  });

  test('takes file: before a path', async () => {
    const bytes = top({ name: 'file:/images/raw.img', format: 'raw' });
    const image = await open(bytes, { '/images/raw.img': raw });
    expect(image.files).toEqual([PATH, '/images/raw.img']);
  });

  test('is refused when it is a circle, or too long', async () => {
    const circle = {
      [PATH]: top({ name: 'b', format: 'qcow2' }),
      '/images/b': top({ name: './../images/disk.qcow2', format: 'qcow2' }),
    };
    expect(await codeOf(open(circle[PATH], circle))).toBe('IMAGE_CORRUPT');
    const long = Object.fromEntries(
      Array.from({ length: 70 }, (_, n) => [
        n === 0 ? PATH : `/images/${n}`,
        n === 69 ? top(undefined) : top({ name: String(n + 1), format: 'qcow2' }),
      ]),
    );
    expect(await codeOf(open(long[PATH] ?? Buffer.alloc(0), long))).toBe('IMAGE_UNSUPPORTED');
  });
});
