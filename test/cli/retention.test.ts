/** retention: set, shown and changed, of a volume at rest and of a served one; what it keeps. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NodeFiles } from '../../src/app/node-files.ts';
import { realWorld } from '../../src/app/real-world.ts';
import { HOUR_US } from '../../src/base/periods.ts';
import { byteOffset, micros } from '../../src/base/units.ts';
import { VolumeDirectory } from '../../src/control/volume-directory.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { temporaryDirectory } from '../support/files.ts';
import { varve, varveToEnd } from '../support/run.ts';
import { Server } from '../support/server.ts';
import { makeVolume, refusedHere } from './house.ts';
import { loadVolumes } from '../support/volume-code.ts';

const MIB = 1024 ** 2;

interface Told {
  readonly policy: Readonly<Record<string, number>>;
  readonly automatic: number;
  readonly heldBytes: number;
  readonly snapshots: readonly { label: string; keptFor: readonly string[] }[];
}

interface Changed {
  readonly policy: Readonly<Record<string, number>>;
  readonly deleted: readonly string[];
  readonly freedBytes: number;
}

async function asked<T>(path: string, ...words: readonly string[]): Promise<T> {
  const answer: T = JSON.parse(await varve(path, [...words, '--json']));
  return answer;
}

async function held(path: string): Promise<number> {
  return (await asked<Told>(path, 'retention', 'disk')).heldBytes;
}

/**
 * Writes the whole disk every hour from so many hours ago on, by a clock that is set to that; the log
 * is wrapped again and again.
 */
async function writeHours(path: string, hours: number): Promise<void> {
  const time = { back: 0 };
  const clock = {
    ...realWorld.clock,
    monotonicUs: () => realWorld.clock.monotonicUs(),
    wallUs: () => micros(realWorld.clock.wallUs() - time.back * HOUR_US),
  };
  const directory = new VolumeDirectory(path, {
    files: new NodeFiles(),
    openDevice: (file, options) => FileDevice.open(file, options),
    world: { ...realWorld, clock },
    loadVolumes,
  });
  time.back = hours;
  const opened = await directory.open('disk', 'write');
  for (; time.back > 0; time.back--) {
    for (let at = 0; at < 16; at++) {
      await opened.volume
        .live()
        .write(byteOffset(at * MIB), new Uint8Array(MIB).fill(time.back), { fua: false });
    }
    await opened.volume.live().flush();
  }
  await opened.close();
}

test('rules are set, shown, changed one by one, and ended, at rest and served', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  const none = { everyWriteUs: 0, hourly: 0, daily: 0, weekly: 0, maxBytes: 0 };
  expect((await asked<Told>(path, 'retention', 'disk')).policy).toEqual(none);
  const words = '--every-write 2h --hourly 24 --daily 7 --weekly 4 --max-bytes 50G'.split(' ');
  const text = await varve(path, ['retention', 'disk', ...words]);
  expect(text).toContain('every write 2h, 24 hourly, 7 daily, 4 weekly, at most 50 GiB');
  const all = {
    everyWriteUs: 2 * HOUR_US,
    hourly: 24,
    daily: 7,
    weekly: 4,
    maxBytes: 50 * 1024 ** 3,
  };
  const record: unknown = JSON.parse(readFileSync(join(path, 'disk', 'volume.json'), 'utf8'));
  expect(record).toMatchObject({ retention: all });
  {
    await using server = await Server.start(path);
    expect((await asked<Told>(path, 'retention', 'disk')).policy).toEqual(all);
    const changed = await asked<Changed>(path, 'retention', 'disk', '--daily', '14');
    expect(changed.policy).toEqual({ ...all, daily: 14 });
    const shown = await varve(path, ['retention', 'disk']);
    expect(shown).toMatch(/^every write +2h$/m);
    expect(shown).toMatch(/^daily +14; 0 there$/m);
    expect(shown).toContain('no moment of disk has left the window');
    const info = await varve(path, ['info', 'disk']);
    expect(info).toMatch(/^forecast +nothing was written/m);
    expect(info).toMatch(/^window +.* long$/m);
    expect(server.isRunning).toBe(true);
  }
  await varve(path, ['retention', 'disk', '--every-write', 'none', '--max-bytes', 'none']);
  const { policy } = await asked<Told>(path, 'retention', 'disk');
  expect(policy).toEqual({ ...all, daily: 14, everyWriteUs: 0, maxBytes: 0 });
  await varve(path, [
    'retention',
    'disk',
    '--hourly',
    '1000',
    '--daily',
    '1000',
    '--weekly',
    '1000',
  ]);
  const many = await varve(path, ['retention', 'disk']);
  expect(many).toMatch(/has room for \d+ automatic snapshots: of the 3000 that the rules ask for/);
  expect((await asked<Changed>(path, 'retention', 'disk', '--none')).policy).toEqual(none);
}, 120_000);

test('hours that left the window are snapshots, which open by name, and go with their rule', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  await varve(path, ['retention', 'disk', '--hourly', '3']);
  await writeHours(path, 12);
  const told = await asked<Told>(path, 'retention', 'disk');
  expect(told.automatic).toBe(3);
  const [oldest] = told.snapshots;
  expect(oldest?.label).toMatch(/^auto-\d{4}-\d{2}-\d{2}T\d{2}:00:00Z$/);
  expect(oldest?.keptFor).toEqual(['hourly']);
  const list = await varve(path, ['snapshot', 'list', 'disk']);
  expect(list).toContain('KEPT FOR');
  expect(list).toContain(oldest?.label);
  const file = join(path, 'out.raw');
  await varve(path, ['export', `disk@${oldest?.label}`, file]);
  const content = readFileSync(file);
  const [first = 0] = content;
  expect(first).toBeGreaterThan(3);
  expect(content.every((byte) => byte === first)).toBe(true);
  await using server = await Server.start(path);
  const changed = await asked<Changed>(path, 'retention', 'disk', '--hourly', '1');
  expect(changed.deleted).toEqual(told.snapshots.slice(0, 2).map(({ label }) => label));
  expect(changed.freedBytes).toBe(told.heldBytes - (await held(path)));
  const limited = await varve(path, ['retention', 'disk', '--max-bytes', '1M']);
  expect(limited).toMatch(/deleted 1 automatic snapshots, [\d.]+ [KM]iB given back/);
  expect(await held(path)).toBe(0);
  expect(server.isRunning).toBe(true);
}, 120_000);

test('what is asked wrongly is refused with the way out', async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  await makeVolume(path);
  const cases: readonly (readonly [readonly string[], string])[] = [
    [['disk', '--hourly', 'many'], 'USAGE'],
    [['disk', '--hourly', '1001'], 'USAGE'],
    [['disk', '--every-write', 'soon'], 'RETENTION_BAD'],
    [['disk', '--every-write', '60w'], 'RETENTION_BAD'],
    [['disk', '--max-bytes', 'few'], 'SIZE_BAD'],
    [['disk', '--none', '--daily', '1'], 'USAGE'],
  ];
  for (const [words, code] of cases) {
    const refusal = await refusedHere(path, ['retention', ...words]);
    expect(refusal.error.code, words.join(' ')).toBe(code);
    expect(refusal.code, words.join(' ')).toBe(2);
  }
  const refusal = await refusedHere(path, ['retention', 'other', '--daily', '1']);
  expect(refusal.error.code).toBe('VOLUME_UNKNOWN');
  const help = await varveToEnd(path, ['retention', '--help']);
  expect(help.stdout).toContain('--every-write 2h --hourly 24 --daily 7 --weekly 4');
}, 120_000);
