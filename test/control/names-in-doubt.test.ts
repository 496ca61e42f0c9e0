/** What a killed process left to the page cache alone is durable before anybody relies on it. */
import { describe, expect, test } from 'vitest';
import { mebibytes } from '../../src/base/units.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { ServedVolumes } from '../../src/control/volume-pool.ts';
import { blocksOf, get, put } from '../crash/bench.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const SMALL = { size: mebibytes(1), logSize: mebibytes(80) };
const NAMED = { change: 'rename', path: '/srv/varve/disk/volume.json.unfinished' } as const;
/** So many worlds: in each the kill and the cut may take what the others keep. */
const SEEDS = 8;
/** The same where one of two rare ends has to be met. */
const SEEDS_OF_BOTH = 20;

const quiet = (): void => undefined;

interface Machine {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  files: SimFiles;
}

function machine(seed: number): Machine {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  return { world, power, files: SimFiles.create(power) };
}

function directoryOf({ power, files }: Machine): VolumeDirectory {
  const { openDevice } = files;
  return new VolumeDirectory('/srv/varve', { files, openDevice, world: power.life, loadVolumes });
}

interface Kill {
  readonly change: 'createDirectory' | 'rename' | 'writeAtomically';
  readonly path: string;
  /** Of what it is given besides. */
  readonly isIt?: (text: string) => boolean;
  /** Of its operations the one that the kill comes at. */
  readonly operation?: number;
}

/** A process that is killed while it makes that change, or just after. */
async function killed(
  made: Machine,
  { change, path, isIt = () => true, operation = 1 }: Kill,
  work: (directory: VolumeDirectory) => Promise<unknown>,
): Promise<void> {
  const { power, files } = made;
  const really: Record<typeof change, (at: string, text: string) => Promise<void>> = files.reopen();
  files[change] = (at: string, text?: string) => {
    if (at === path && isIt(text ?? '')) power.plan({ loss: 'kill', afterOperations: operation });
    return really[change](at, text ?? '');
  };
  await power.runLife(() => work(directoryOf(made)));
  if (power.alive) power.kill();
  power.restore();
  made.files = files.reopen();
}

function cut(made: Machine): void {
  made.power.cut();
  made.power.restore();
  made.files = made.files.reopen();
}

const create = (directory: VolumeDirectory): Promise<unknown> =>
  directory.create('disk', SMALL, quiet);

async function flushOne(directory: VolumeDirectory): Promise<void> {
  const { volume } = await directory.open('disk', 'write');
  await put(volume, 0, blocksOf(7), true);
}

async function needFlushed(directory: VolumeDirectory): Promise<void> {
  expect(await directory.names()).toEqual(['disk']);
  const opened = await directory.open('disk', 'read');
  expect(Buffer.compare(await get(opened.volume.live(), 0), blocksOf(7))).toBe(0);
  await opened.close();
}

describe('a volume whose creation was killed', () => {
  // Between rename(2) of its record and the sync of its folder. It was served, and a client flushed;
  // then a power cut took the record's name back, and the next creation cleared log and all away.
  test('keeps its name once somebody could write to it', async () => {
    let seen = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const made = machine(seed);
      const { world } = made;
      await killed(made, NAMED, create);
      const isThere = await world.run(() => directoryOf(made).has('disk'));
      if (!isThere) continue;
      seen += 1;
      await world.run(() => flushOne(directoryOf(made)));
      cut(made);
      await world.run(() => needFlushed(directoryOf(made)));
    }
    expect(seen).toBeGreaterThan(SEEDS / 4);
  });

  test('may be gone after a power cut, and is made again, while nobody opened it', async () => {
    const found = new Set<boolean>();
    for (let seed = 0; seed < SEEDS_OF_BOTH; seed++) {
      const made = machine(seed);
      const { world } = made;
      await killed(made, NAMED, create);
      const isSeen = await world.run(() => directoryOf(made).has('disk'));
      cut(made);
      await world.run(async () => {
        const directory = directoryOf(made);
        const isThere = await directory.has('disk');
        if (isSeen) found.add(isThere);
        if (!isThere) await create(directory);
        await flushOne(directory);
      });
      cut(made);
      await world.run(() => needFlushed(directoryOf(made)));
    }
    expect(found).toEqual(new Set([false, true]));
  });

  // As it made a directory, which the next creation found there, and took for durable.
  test.each([
    { path: '/srv/varve', operation: 3 },
    { path: '/srv/varve/disk', operation: 2 },
  ])('leaves no doubt about $path', async ({ path, operation }) => {
    let seen = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const made = machine(seed);
      const { world } = made;
      await killed(made, { change: 'createDirectory', path, operation }, create);
      await world.run(async () => {
        if ((await made.files.kind(path)) !== 'none') seen += 1;
        await create(directoryOf(made));
        await flushOne(directoryOf(made));
      });
      cut(made);
      await world.run(() => needFlushed(directoryOf(made)));
    }
    expect(seen).toBeGreaterThan(SEEDS / 4);
  });
});

async function operatorOf(directory: VolumeDirectory): Promise<LocalOperator> {
  return new LocalOperator(directory, await ServedVolumes.open(directory), { isServed: true });
}

/** A volume and its clone, closed. */
async function cloned(): Promise<SimFiles> {
  const made = machine(0);
  await made.world.run(async () => {
    const directory = directoryOf(made);
    await directory.create('one', SMALL, quiet);
    const pool = await ServedVolumes.open(directory);
    const operator = new LocalOperator(directory, pool, { isServed: true });
    await operator.clone('two', { of: 'one' }, quiet);
    await pool.close();
  });
  return made.files;
}

/** The clone is being flattened by a process that is killed as it drops the base. */
async function killedFlatten(before: SimFiles, seed: number): Promise<Machine> {
  const made = machine(seed);
  made.files = before.copy(made.power);
  const drops = (text: string): boolean => text.includes('hadBase') && !text.includes('"base"');
  const path = '/srv/varve/two/volume.json';
  await killed(made, { change: 'writeAtomically', path, isIt: drops }, async (directory) => {
    await (await operatorOf(directory)).flatten('two', quiet);
  });
  return made;
}

describe('a base that a killed flatten dropped', () => {
  // The record without it was in the page cache alone. What needed the base no more was deleted,
  // or trimmed; then a power cut brought the record with the base back.
  test.each(['opened', 'deleted'] as const)(
    'stays dropped once it was believed: %s',
    async (way) => {
      const before = await cloned();
      let seen = 0;
      for (let seed = 0; seed < SEEDS; seed++) {
        const made = await killedFlatten(before, seed);
        const { world } = made;
        const isDropped = await world.run(async () => {
          const directory = directoryOf(made);
          if ((await directory.record('two')).base !== undefined) return false;
          if (way === 'opened') await directory.open('two', 'read');
          else await (await operatorOf(directory)).deleteSnapshot('one', 'clone-two');
          return true;
        });
        if (!isDropped) continue;
        seen += 1;
        cut(made);
        await world.run(async () => {
          const directory = directoryOf(made);
          expect((await directory.record('two')).base).toBeUndefined();
          await (await directory.open('two', 'write')).close();
        });
      }
      expect(seen).toBeGreaterThan(SEEDS / 4);
    },
  );
});
