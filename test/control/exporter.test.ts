/** Exports that are interrupted at every place, and gone on with: the image is the same, byte for byte. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import { byteCount, generation, mebibytes } from '../../src/base/units.ts';
import { exportImage, firstNote, type Exported } from '../../src/control/exporter.ts';
import {
  findPart,
  needSame,
  parseNote,
  partPaths,
  type ExportFormat,
  type PartNote,
} from '../../src/control/export-part.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { NodeFiles } from '../../src/app/node-files.ts';
import { temporaryDirectory } from '../support/files.ts';
import { PatternDevice, type Extent } from '../support/pattern-device.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';

const MIB = 2 ** 20;
const KIB = 2 ** 10;
const FILE = '/out/disk.image';
const PATHS = partPaths(FILE);
const UUID = '6d1c3a52-7c09-4e2f-a4b0-0c7c9de1a001';
const LINEAGE = '6d1c3a52-7c09-4e2f-a4b0-0c7c9de1a002';

/** Over three tables of a qcow2 image, with edges of all kinds inside clusters. */
const SIZE = 1050 * MIB + 5 * KIB;
const EXTENTS: readonly Extent[] = [
  { offset: 0, length: 300 * KIB, kind: 'data' },
  { offset: MIB, length: 8 * KIB, kind: 'zero' },
  { offset: 2 * MIB + 4 * KIB, length: 4 * KIB, kind: 'data' },
  { offset: 3 * MIB, length: 70 * KIB, kind: 'blank' },
  { offset: 511 * MIB, length: 2 * MIB, kind: 'data' },
  { offset: 600 * MIB, length: 200 * MIB, kind: 'zero' },
  { offset: 1049 * MIB + 512 * KIB, length: 512 * KIB + 5 * KIB, kind: 'data' },
];

const disk = (): PatternDevice => new PatternDevice(SIZE, EXTENTS);

function noteOf(format: ExportFormat): PartNote {
  const identity = { uuid: UUID, lineage: LINEAGE, generation: generation(7) };
  return firstNote(
    { ...identity, size: byteCount(SIZE) },
    { asked: 'disk@-1m', canonicalName: 'disk@gen=7', format },
  );
}

interface Machine {
  readonly power: PowerSupply;
  readonly files: SimFiles;
}

async function machine(seed: number, skipSyncs: readonly SyncPoint[] = []): Promise<Machine> {
  const power = new PowerSupply(new SimWorld(seed));
  const files = SimFiles.create(power, { skipSyncs: new Set(skipSyncs) });
  await power.world.run(() => files.createDirectory('/out'));
  return { power, files };
}

interface Way {
  readonly device?: PatternDevice;
  readonly keepGoing?: boolean;
  /** The export is interrupted once it is so far. */
  readonly until?: number;
  readonly replaces?: boolean;
  /** What was looked at before; now, if not given. */
  readonly found?: PartNote | undefined;
  readonly onProgress?: (done: number) => void;
}

/** What the command does, with a note every 512 KiB. */
async function attempt(files: SimFiles, format: ExportFormat, way: Way = {}): Promise<Exported> {
  const { device = disk(), keepGoing = false, replaces = false, until = Infinity } = way;
  const found = way.found ?? (await findPart(files, PATHS));
  return exportImage(
    { files, openDevice: files.openDevice },
    {
      device,
      file: FILE,
      note: found ?? noteOf(format),
      keepGoing,
      replaces,
      notedEachBytes: byteCount(512 * KIB),
      progress: (done) => {
        way.onProgress?.(done);
        if (done >= until) throw new VarveError('INTERRUPTED', 'exporting');
      },
    },
  );
}

/** Where anything can be: around what the disk holds, and the beginning of what is compact. */
const PLACES: readonly number[] = [
  ...new Set([
    ...Array.from({ length: 8 }, (_, at) => at * MIB),
    ...EXTENTS.flatMap(({ offset }) => [offset, offset + MIB]),
  ]),
].map((at) => Math.floor(at / MIB) * MIB);

function contentOf(files: SimFiles): ReadonlyMap<number, Buffer> {
  const { platter, size } = files.disk(FILE);
  const found = new Map<number, Buffer>();
  for (const at of PLACES) {
    if (at >= size) continue;
    const bytes = Buffer.alloc(Math.min(MIB, size - at));
    platter.read(at, bytes);
    found.set(at, bytes);
  }
  return found;
}

function isSame(files: SimFiles, expected: ReadonlyMap<number, Buffer>): boolean {
  const found = contentOf(files);
  return [...expected].every(([place, bytes]) => found.get(place)?.equals(bytes) === true);
}

async function calmly(format: ExportFormat): Promise<Machine & { readonly exported: Exported }> {
  const calm = await machine(1);
  const exported = await calm.power.world.run(() => attempt(calm.files, format));
  return { ...calm, exported };
}

describe.each(['raw', 'qcow2'] as const)('an export to %s', (format) => {
  test('leaves the image and nothing else', async () => {
    const { files, power, exported } = await calmly(format);
    expect(await power.world.run(() => files.list('/out'))).toEqual(['disk.image']);
    expect(exported.unreadable).toEqual([]);
    if (format === 'qcow2') return;
    expect(exported.dataBytes).toBe((300 + 4 + 2048 + 517) * KIB);
    const bytes = Buffer.alloc(MIB);
    const expected = Buffer.alloc(MIB);
    for (const at of [0, 2 * MIB, 3 * MIB, 511 * MIB, 512 * MIB, 700 * MIB, 1049 * MIB]) {
      files.disk(FILE).platter.read(at, bytes);
      await disk().read(at, expected);
      expect(bytes.equals(expected), `at ${at}`).toBe(true);
    }
  });

  test('goes on after a kill or a power cut, wherever that was', async () => {
    const calm = await calmly(format);
    const expected = contentOf(calm.files);
    const { operations } = calm.power;
    let resumed = 0;
    for (let at = 1; at <= operations; at += 1) {
      const { power, files } = await machine(at);
      power.plan({ loss: at % 3 === 0 ? 'kill' : 'cut', afterOperations: at });
      await power.runLife(() => attempt(files, format));
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      await power.world.run(async () => {
        const isDone = (await again.kind(FILE)) !== 'none';
        const note = await findPart(again, PATHS);
        expect(isDone && note !== undefined, 'a whole image has no part').toBe(false);
        if (note !== undefined && note.done > 0) resumed += 1;
        if (!isDone) await attempt(again, format);
        expect(await again.kind(PATHS.part)).toBe('none');
      });
      expect(isSame(again, expected), `cut at ${at}`).toBe(true);
    }
    expect(resumed).toBeGreaterThan(5);
  });

  test('needs its syncs', async () => {
    const calm = await calmly(format);
    const expected = contentOf(calm.files);
    let wrong = 0;
    for (let at = calm.power.operations; at > 0; at -= 1) {
      const { power, files } = await machine(at, ['export']);
      power.plan({ loss: 'cut', afterOperations: at });
      await power.runLife(() => attempt(files, format));
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      await power.world.run(async () => {
        if ((await again.kind(FILE)) === 'none') {
          // A table that never arrived may be found out.
          await attempt(again, format).catch(() => undefined);
        }
      });
      const isThere = (await power.world.run(() => again.kind(FILE))) !== 'none';
      if (!isThere || !isSame(again, expected)) wrong += 1;
    }
    expect(wrong).toBeGreaterThan(0);
  });

  test('that is interrupted keeps all that it has copied, and says how to go on', async () => {
    const expected = contentOf((await calmly(format)).files);
    const { power, files } = await machine(2);
    const device = disk();
    await power.world.run(async () => {
      const ended = attempt(files, format, { device, until: 512 * MIB });
      await expect(ended).rejects.toMatchObject({
        code: 'INTERRUPTED',
        next: 'the same command with --resume',
        detail: expect.stringMatching(/disk\.image\.part keeps 536870912 of .*--resume/),
      });
      expect(device.reading).toBe(0);
      expect((await findPart(files, PATHS))?.done).toBe(512 * MIB);
      expect(await files.kind(FILE)).toBe('none');
      await attempt(files, format);
    });
    expect(isSame(files, expected)).toBe(true);
  });

  test('that has copied nothing leaves nothing', async () => {
    const { power, files } = await machine(3);
    const device = new PatternDevice(SIZE, [{ offset: 0, length: 8 * KIB, kind: 'unreadable' }]);
    await power.world.run(async () => {
      await expect(attempt(files, format, { device })).rejects.toMatchObject({
        code: 'BLOCK_CORRUPT',
      });
      expect(await files.list('/out')).toEqual([]);
    });
  });

  test('stops at what it can not read, and goes on over it when told to', async () => {
    const { power, files } = await machine(4);
    const extents: readonly Extent[] = [
      { offset: 0, length: MIB, kind: 'data' },
      { offset: 2 * MIB, length: 8 * KIB, kind: 'unreadable' },
      { offset: 5 * MIB, length: MIB, kind: 'data' },
      { offset: 9 * MIB, length: 4 * KIB, kind: 'unreadable' },
    ];
    const device = new PatternDevice(SIZE, extents);
    await power.world.run(async () => {
      await expect(attempt(files, format, { device })).rejects.toMatchObject({
        code: 'BLOCK_CORRUPT',
        detail: expect.stringContaining('--resume'),
      });
      const stopped = attempt(files, format, { device, keepGoing: true, until: 7 * MIB });
      await expect(stopped).rejects.toMatchObject({ code: 'INTERRUPTED' });
      const { unreadable } = await attempt(files, format, { device, keepGoing: true });
      expect(unreadable.map(({ offset, length }) => [offset, length])).toEqual([
        [2 * MIB, 8 * KIB],
        [9 * MIB, 4 * KIB],
      ]);
    });
  });

  // `export --resume` looked at the note, then waited for the server; meanwhile `export --force` of
  // another moment took the part over, and was interrupted. The first one went on behind what it
  // had never written, and gave the mixture the name of a whole image.
  test('goes on with nothing but what it has looked at', async () => {
    const expected = contentOf((await calmly(format)).files);
    const { power, files } = await machine(7);
    await power.world.run(async () => {
      await attempt(files, format, { until: 512 * MIB }).catch(() => undefined);
      const found = await findPart(files, PATHS);
      expect(found?.done).toBe(512 * MIB);
      const other = { ...noteOf(format), generation: generation(8) };
      const taken = attempt(files, format, { found: other, until: 2 * MIB });
      await expect(taken).rejects.toMatchObject({ code: 'INTERRUPTED' });
      const stale = attempt(files, format, { found });
      await expect(stale).rejects.toMatchObject({
        code: 'FILE_IN_USE',
        next: expect.stringContaining('the same command again'),
      });
      expect(await files.kind(FILE)).toBe('none');
      expect((await findPart(files, PATHS))?.generation).toBe(8);
      await attempt(files, format, { found: noteOf(format) });
    });
    expect(isSame(files, expected)).toBe(true);
  });

  // A file that somebody wrote there while the export ran was replaced, without --force.
  test('does not replace unasked what came to be meanwhile', async () => {
    const expected = contentOf((await calmly(format)).files);
    const { power, files } = await machine(8);
    await power.world.run(async () => {
      let made: Promise<unknown> = Promise.resolve();
      const onProgress = (done: number): void => {
        if (done === SIZE) made = files.writeAtomically(FILE, 'another');
      };
      await expect(attempt(files, format, { onProgress })).rejects.toMatchObject({
        code: 'FILE_EXISTS',
        next: expect.stringContaining('--resume --force'),
      });
      await made;
      expect(await files.readText(FILE)).toBe('another');
      // Nothing is copied again.
      const device = new PatternDevice(SIZE, [{ offset: 0, length: SIZE, kind: 'unreadable' }]);
      await attempt(files, format, { device, replaces: true });
      expect(await files.list('/out')).toEqual(['disk.image']);
    });
    expect(isSame(files, expected)).toBe(true);
  });

  test('believes no second sync after one that failed', async () => {
    const expected = contentOf((await calmly(format)).files);
    const { power, files } = await machine(5);
    let faults = 0;
    const openDevice: SimFiles['openDevice'] = async (path, options) => {
      const device = await files.openDevice(path, options);
      let syncs = 0;
      const sync = device.sync.bind(device);
      device.sync = async (point) => {
        syncs += 1;
        if (syncs !== 2 || faults > 0) return sync(point);
        faults += 1;
        throw new VarveError('DEVICE_IO', 'planned');
      };
      return device;
    };
    await power.world.run(async () => {
      const job = {
        device: disk(),
        file: FILE,
        note: noteOf(format),
        keepGoing: false,
        replaces: false,
      };
      const often = { notedEachBytes: byteCount(512 * KIB), progress: () => undefined };
      await expect(exportImage({ files, openDevice }, { ...job, ...often })).rejects.toMatchObject({
        code: 'DEVICE_IO',
      });
      const note = await findPart(files, PATHS);
      expect(faults).toBe(1);
      // The first sync was good; nothing that came after it is noted.
      expect(note?.done).toBe(512 * MIB);
      await attempt(files, format);
    });
    expect(isSame(files, expected)).toBe(true);
  });
});

// Its end was lost, by a repair of the file system or a copy that was cut short. The export went on, and
// told of success: the clusters that were gone read as zeros.
test('a part that is shorter than its note says is refused', async () => {
  using directory = temporaryDirectory();
  const size = byteCount(8 * MIB);
  const device = new PatternDevice(size, [{ offset: 3 * MIB, length: MIB, kind: 'data' }]);
  const ports = { files: new NodeFiles(), openDevice: FileDevice.open.bind(FileDevice) };
  const file = join(directory.path, 'disk.qcow2');
  const paths = partPaths(file);
  const begun = { ...noteOf('qcow2'), size };
  const go = async (note: PartNote, until: number): Promise<Exported> =>
    exportImage(ports, {
      device,
      file,
      note,
      keepGoing: false,
      replaces: false,
      progress: (done) => {
        if (done >= until) throw new VarveError('INTERRUPTED', 'exporting');
      },
    });
  const found = async (): Promise<PartNote> => (await findPart(ports.files, paths)) ?? begun;
  const interrupted = { code: 'INTERRUPTED' };
  await expect(go(begun, 2 * MIB)).rejects.toMatchObject(interrupted);
  // Nothing was there to be written so far: there is nothing to miss.
  await expect(go(await found(), 5 * MIB)).rejects.toMatchObject(interrupted);
  const note = await found();
  expect(statSync(paths.part).size).toBe(note.place.fileEnd);
  const whole = readFileSync(paths.part);
  truncateSync(paths.part, note.place.fileEnd - 1);
  await expect(go(note, Infinity)).rejects.toMatchObject({
    code: 'PART_FOREIGN',
    detail: expect.stringContaining(`expected ${note.place.fileEnd} or more`),
  });
  writeFileSync(paths.part, whole);
  expect((await go(note, Infinity)).dataBytes).toBe(MIB);
});

describe('the note of an unfinished export', () => {
  const note = noteOf('qcow2');
  const same = { ...note };

  test('refuses what it is not of', () => {
    expect(() => needSame(note, same, PATHS.part)).not.toThrow();
    for (const other of [
      { format: 'raw' as const },
      { uuid: LINEAGE },
      { lineage: UUID },
      { generation: generation(8) },
      { size: mebibytes(1) },
    ]) {
      expect(() => needSame(note, { ...same, ...other }, PATHS.part)).toThrow(
        /begun by: varve export disk@-1m --format qcow2/,
      );
    }
  });

  test('is looked at before it is believed', () => {
    const good = { exportPart: 1, ...note };
    for (const bad of [
      { uuid: 'x' },
      { done: 12_345 },
      { done: SIZE + MIB },
      { format: 'vmdk' },
      { unreadable: [{ offset: 1 }] },
      { place: undefined },
    ]) {
      let code: string | undefined;
      try {
        parseNote(JSON.stringify({ ...good, ...bad }), 'note');
      } catch (error) {
        if (isVarveError(error)) ({ code } = error);
      }
      expect(code, JSON.stringify(bad)).toBe('PART_FOREIGN');
    }
    expect(() => parseNote('{', 'note')).toThrow(/JSON/);
    expect(() => parseNote(JSON.stringify({ ...good, exportPart: 2 }), 'note')).toThrow(/version/);
    expect(parseNote(JSON.stringify(good), 'note')).toEqual(note);
  });

  test('stands beside every part of ours', async () => {
    const { power, files } = await machine(6);
    await power.world.run(async () => {
      await files.openDevice(PATHS.part, { create: true, size: byteCount(4096) });
      await expect(findPart(files, PATHS)).rejects.toMatchObject({ code: 'PART_FOREIGN' });
      await files.remove(PATHS.part);
      await files.writeAtomically(PATHS.note, 'of a part that has got its name');
      expect(await findPart(files, PATHS)).toBeUndefined();
    });
  });
});
