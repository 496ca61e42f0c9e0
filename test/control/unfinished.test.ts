/** What a creation leaves outside the volume's folder when a crash ends it, and who may remove it. */
import { describe, expect, test } from 'vitest';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import { VolumeDirectory, type CreateOptions } from '../../src/control/volume-directory.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles, type SimFilesOptions } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const SIZES = { size: mebibytes(1), logSize: mebibytes(80) };
const LOG = '/fast/log';
const FINAL = '/slow/final';
const OUTSIDE: CreateOptions = { ...SIZES, logPath: LOG, finalPath: FINAL };

const quiet = (): void => undefined;

function directoryOn(power: PowerSupply, files: SimFiles, path = '/srv/varve'): VolumeDirectory {
  const { openDevice } = files;
  return new VolumeDirectory(path, { files, openDevice, world: power.life, loadVolumes });
}

interface Machine {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  files: SimFiles;
}

async function machine(seed: number, options: SimFilesOptions = {}): Promise<Machine> {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const files = SimFiles.create(power, options);
  await world.run(async () => {
    await files.createDirectory('/fast');
    await files.createDirectory('/slow');
  });
  return { world, power, files };
}

/** Operations of a creation outside. */
async function operationsOf(): Promise<number> {
  const { world, power, files } = await machine(0);
  const before = power.operations;
  await world.run(() => directoryOn(power, files).create('disk', OUTSIDE, quiet));
  return power.operations - before;
}

/** Creates until the loss that comes at that operation, and turns the machine on again. */
async function createUntil(made: Machine, at: number): Promise<void> {
  const { power, files } = made;
  power.plan({ loss: at % 2 === 0 ? 'cut' : 'kill', afterOperations: at });
  await power.runLife(() => directoryOn(power, files).create('disk', OUTSIDE, quiet));
  if (power.alive) power.cut();
  power.restore();
  made.files = files.reopen();
}

async function outside(files: SimFiles): Promise<readonly string[]> {
  const found = [...(await files.list('/fast')), ...(await files.list('/slow'))];
  return found.map((name) => (name.startsWith('.varve-') ? 'second name' : name));
}

/** A creation that ended while the log was written, as most do. */
async function unfinished(options: SimFilesOptions = {}): Promise<Machine> {
  const made = await machine(1, options);
  const { power, files } = made;
  const cut = (): void => {
    power.cut();
  };
  await power.runLife(() => directoryOn(power, files).create('disk', OUTSIDE, cut));
  power.restore();
  return { ...made, files: files.reopen() };
}

describe('a creation outside the folder that a crash ended', () => {
  test('is made again, wherever it ended, and leaves nothing of the first', async () => {
    // The files at --log and --final stood in the way until somebody removed them.
    const seen = new Set<string>();
    const operations = await operationsOf();
    for (let run = 0; run < 2 * operations; run++) {
      const made = await machine(run);
      await createUntil(made, 1 + (run % operations));
      const { world, power, files } = made;
      const directory = directoryOn(power, files);
      await world.run(async () => {
        const isWhole = (await directory.names()).includes('disk');
        const state = `${isWhole ? 'whole' : 'none'}: ${(await outside(files)).join(', ')}`;
        // Making it again is what takes time.
        if (seen.has(state) && run % 18 !== 0) return;
        seen.add(state);
        if (!isWhole) await directory.create('disk', OUTSIDE, quiet);
        await (await directory.open('disk', 'write')).close();
        expect(await outside(files)).toEqual(['log', 'final']);
        expect(await files.list('/srv/varve/disk')).toEqual([
          'final.sums',
          'lock',
          'undo',
          'volume.json',
        ]);
      });
    }
    expect([...seen].sort()).toEqual([
      'none: ',
      'none: second name',
      'none: second name, log',
      'none: second name, log, second name',
      'none: second name, log, second name, final',
      'whole: log, final',
      'whole: log, second name, final',
      'whole: second name, log, second name, final',
    ]);
  });

  test('is cleared away by one of that name elsewhere, and that again after a cut', async () => {
    const base = await unfinished();
    expect(await base.world.run(() => outside(base.files))).toHaveLength(4);
    for (let at = 1; at < 40; at += 4) {
      const world = new SimWorld(at);
      const power = new PowerSupply(world);
      const files = base.files.copy(power);
      power.plan({ loss: 'cut', afterOperations: at });
      await power.runLife(() => directoryOn(power, files).create('disk', SIZES, quiet));
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      await world.run(async () => {
        await directoryOn(power, again).create('disk', SIZES, quiet);
        expect(await outside(again)).toEqual([]);
      });
    }
  });

  test('never touches what was there before it, wherever it ended', async () => {
    for (let at = 1; at < 40; at += 2) {
      const made = await machine(at);
      const mine = { create: true, size: mebibytes(1) };
      await made.world.run(() => made.files.openDevice(FINAL, mine));
      const { power } = made;
      const disk = made.files.disk(FINAL);
      power.plan({ loss: 'cut', afterOperations: at });
      const { files } = made;
      await power.runLife(() =>
        directoryOn(power, files)
          .create('disk', OUTSIDE, quiet)
          .catch((error: unknown) => {
            expect(error).toMatchObject({ code: 'LOG_IN_USE' });
          }),
      );
      if (power.alive) power.cut();
      power.restore();
      const again = files.reopen();
      await made.world.run(async () => {
        const directory = directoryOn(power, again);
        await expect(directory.create('disk', OUTSIDE, quiet)).rejects.toMatchObject({
          code: 'LOG_IN_USE',
        });
        expect(await outside(again)).toEqual(['final']);
        expect(again.disk(FINAL)).toBe(disk);
      });
    }
  });

  test('has no claim to what came to its paths afterwards', async () => {
    // A blank file of that size may be the final storage of a volume that nobody destaged yet.
    const { world, power, files } = await unfinished();
    await world.run(async () => {
      await files.remove(LOG);
      await files.remove(FINAL);
      const other = directoryOn(power, files, '/srv/other');
      await other.create('disk', OUTSIDE, quiet);
      const held = await other.open('disk', 'write');
      await held.volume.live().write(byteOffset(0), new Uint8Array(4096).fill(7), { fua: true });
      await held.close();
      const directory = directoryOn(power, files);
      const used = { code: 'LOG_IN_USE' };
      await expect(directory.create('disk', OUTSIDE, quiet)).rejects.toMatchObject(used);
      await directory.create('disk', SIZES, quiet);
      expect(await outside(files)).toEqual(['log', 'final']);
      const found = new Uint8Array(4096);
      const opened = await other.open('disk', 'read');
      await opened.volume.live().read(byteOffset(0), found);
      expect(found.every((byte) => byte === 7)).toBe(true);
      await opened.close();
    });
  });

  test('has no claim to its own file of another size: somebody has filled it', async () => {
    const { world, power, files } = await unfinished();
    await world.run(async () => {
      const record = '/srv/varve/disk/volume.json.unfinished';
      const source = (await files.readText(record)) ?? '';
      const other = source.replace(`${SIZES.logSize}`, `${mebibytes(81)}`);
      expect(other).not.toBe(source);
      await files.writeAtomically(record, other);
      await directoryOn(power, files).create('disk', SIZES, quiet);
      expect(await outside(files)).toEqual(['log']);
    });
  });

  test('leaves its paths to other names until it is made again', async () => {
    const { world, power, files } = await unfinished();
    await world.run(async () => {
      const directory = directoryOn(power, files);
      const used = { code: 'LOG_IN_USE' };
      await expect(directory.create('two', OUTSIDE, quiet)).rejects.toMatchObject(used);
      expect(await outside(files)).toHaveLength(4);
      await directory.create('disk', SIZES, quiet);
      await directory.create('two', OUTSIDE, quiet);
      await (await directory.open('two', 'write')).close();
    });
  });

  test('is in the way where a file has one name only, as nothing tells whose it is', async () => {
    const { world, power, files } = await unfinished({ hasLinks: false });
    await world.run(async () => {
      const directory = directoryOn(power, files);
      expect(await outside(files)).toEqual(['log', 'final']);
      const used = { code: 'LOG_IN_USE' };
      await expect(directory.create('disk', OUTSIDE, quiet)).rejects.toMatchObject(used);
      await files.remove(LOG);
      await files.remove(FINAL);
      await directory.create('disk', OUTSIDE, quiet);
      await (await directory.open('disk', 'write')).close();
      expect(await outside(files)).toEqual(['log', 'final']);
    });
  });
});

describe('a creation outside the folder', () => {
  test('leaves nothing behind when it fails, whatever fails', async () => {
    let failed = 0;
    for (let at = 0; ; at++) {
      const { world, power, files } = await machine(at);
      const isOver = await world.run(async () => {
        let changes = 0;
        const directory = new VolumeDirectory('/srv/varve', {
          files,
          world: power.life,
          loadVolumes,
          openDevice: (path, options) => {
            if (changes++ === at) files.failNext('DISK_FULL');
            return files.openDevice(path, options);
          },
        });
        const error = await directory.create('disk', OUTSIDE, quiet).catch((e: unknown) => e);
        if (changes <= at) return true;
        expect(await directory.names()).toEqual(error instanceof Error ? [] : ['disk']);
        expect(await outside(files)).toEqual(error instanceof Error ? [] : ['log', 'final']);
        failed += error instanceof Error ? 1 : 0;
        return false;
      });
      if (isOver) break;
    }
    // Each file is made under its second name, and the next change may be its naming; the sums.
    expect(failed).toBe(6);
  });
});
