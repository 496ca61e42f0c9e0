/** The policy of volume.json: told to whatever is opened, and never another one than is written there. */
import { describe, expect, test } from 'vitest';
import { HOUR_US } from '../../src/base/periods.ts';
import { byteOffset, mebibytes } from '../../src/base/units.ts';
import { LocalOperator } from '../../src/control/local-operator.ts';
import { VolumeDirectory, type CreateOptions } from '../../src/control/volume-directory.ts';
import { ServedVolumes, TransientVolumes } from '../../src/control/volume-pool.ts';
import { parseRecord, recordText } from '../../src/control/volume-record.ts';
import { changedPolicy, NO_RETENTION } from '../../src/volume/retention-policy.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimFiles } from '../sim/sim-files.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { loadVolumes } from '../support/volume-code.ts';

const SMALL: CreateOptions = { size: mebibytes(1), logSize: mebibytes(80) };
const PATH = '/srv/varve';
const quiet = (): void => undefined;
const hourly = (count: number) => ({ ...NO_RETENTION, hourly: count });

interface House {
  readonly world: SimWorld;
  readonly files: SimFiles;
  readonly directory: VolumeDirectory;
}

async function house(seed: number, work: (house: House) => Promise<void>): Promise<void> {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const files = SimFiles.create(power);
  const { openDevice } = files;
  const directory = new VolumeDirectory(PATH, {
    files,
    openDevice,
    world: power.life,
    loadVolumes,
  });
  await world.run(async () => {
    await directory.create('disk', SMALL, quiet);
    await work({ world, files, directory });
  });
}

/** So many hours leave the window. */
async function hoursPass({ world }: House, volume: Volume, hours: number): Promise<void> {
  for (let hour = 0; hour < hours; hour++) {
    for (let at = 0; at < 4; at++) {
      const whole = new Uint8Array(mebibytes(1)).fill(hour + 1);
      await volume.live().write(byteOffset(0), whole, { fua: false });
    }
    volume.core.log.stream.seal();
    world.jumpWall(HOUR_US);
  }
}

function automatic(volume: Volume | undefined): number {
  return volume?.core.catalogue.automatic().length ?? -1;
}

describe('the policy of volume.json', () => {
  test('is told to what is opened, made, or cloned, served or not; reading only, it does nothing', async () => {
    await house(1, async ({ directory }) => {
      const served = await ServedVolumes.open(directory);
      const operator = new LocalOperator(directory, served, { isServed: true });
      await operator.setRetention('disk', { hourly: 5 });
      await operator.create('second', SMALL, quiet);
      await operator.clone('copy', { of: 'disk', logSize: undefined }, quiet);
      for (const name of ['second', 'copy']) {
        expect(served.find(name)?.core.retention).toEqual(NO_RETENTION);
        expect((await operator.setRetention(name, { daily: 2 })).policy.daily).toBe(2);
        expect(served.find(name)?.core.retention.daily).toBe(2);
      }
      await served.close();
      const again = await ServedVolumes.open(directory);
      expect(again.find('disk')?.core.retention).toEqual(hourly(5));
      expect(again.find('copy')?.core.retention.daily).toBe(2);
      await again.close();
      const alone = new LocalOperator(directory, new TransientVolumes(directory), {
        isServed: false,
      });
      expect((await alone.info('disk')).retention.policy).toEqual(hourly(5));
    });
  });

  test('acts at once where a crash came between it and what follows from it', async () => {
    await house(2, async (at) => {
      const { directory } = at;
      await directory.change('disk', 'free', () => ({ retention: hourly(5) }));
      const first = await ServedVolumes.open(directory);
      const volume = first.find('disk');
      if (volume === undefined) throw new Error('it is served');
      await hoursPass(at, volume, 20);
      expect(automatic(volume)).toBe(5);
      await first.close();
      await directory.change('disk', 'free', () => ({ retention: hourly(2) }));
      const reader = await directory.open('disk', 'read');
      expect(automatic(reader.volume)).toBe(5);
      await reader.close();
      const second = await ServedVolumes.open(directory);
      expect(automatic(second.find('disk'))).toBe(2);
      await second.close();
    });
  });

  test('is the one that was asked for last, however many ask at once', async () => {
    await house(3, async ({ directory }) => {
      const served = await ServedVolumes.open(directory);
      const operator = new LocalOperator(directory, served, { isServed: true });
      const asked = Array.from({ length: 8 }, (_, i) =>
        operator.setRetention('disk', i % 2 === 0 ? { hourly: i + 1 } : { daily: i + 1 }),
      );
      await Promise.all(asked);
      const { retention } = await directory.record('disk');
      expect(retention).toEqual({ ...NO_RETENTION, hourly: 7, daily: 8 });
      expect(served.find('disk')?.core.retention).toEqual(retention);
      await served.close();
    });
  });

  test('does not change while somebody else has the volume', async () => {
    await house(4, async ({ directory }) => {
      const opened = await directory.open('disk', 'write');
      const alone = new LocalOperator(directory, new TransientVolumes(directory), {
        isServed: false,
      });
      const asked = alone.setRetention('disk', { hourly: 3 });
      await expect(asked).rejects.toMatchObject({ code: 'VOLUME_LOCKED' });
      await opened.close();
      expect((await directory.record('disk')).retention).toEqual(NO_RETENTION);
      const bad = alone.setRetention('disk', { hourly: 3000 });
      await expect(bad).rejects.toMatchObject({ code: 'RETENTION_BAD' });
      expect((await directory.record('disk')).retention).toEqual(NO_RETENTION);
    });
  });

  test('may be written there by hand, in part; what is out of range is refused by name', async () => {
    await house(5, async ({ directory }) => {
      const text = recordText(await directory.record('disk'));
      const withPolicy = (policy: unknown): string =>
        JSON.stringify({ ...JSON.parse(text), retention: policy });
      const parsed = (policy: unknown) => parseRecord(withPolicy(policy), 'volume.json').retention;
      expect(parsed({ hourly: 24 })).toEqual(hourly(24));
      expect(parsed(undefined)).toEqual(NO_RETENTION);
      for (const [policy, field] of [
        [{ hourly: 1001 }, 'retention.hourly'],
        [{ daily: -1 }, 'retention.daily'],
        [{ weekly: 1.5 }, 'retention.weekly'],
        [{ everyWriteUs: 1e16 }, 'retention.everyWriteUs'],
        [{ maxBytes: '50G' }, 'retention.maxBytes'],
        ['none', 'retention'],
      ] as const) {
        expect(() => parsed(policy), field).toThrow(
          expect.objectContaining({
            code: 'VOLUME_FOREIGN',
            detail: expect.stringContaining(`volume.json: ${field} is not`),
          }),
        );
      }
      expect(parseRecord(text, '').retention).toEqual(changedPolicy(NO_RETENTION, {}));
    });
  });
});
