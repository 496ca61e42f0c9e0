/**
 * A cut a few operations behind a turning point of a round, while writers that never flush already
 * use the recycled slots. Later syncs would hide a missing one, so nothing here asks for any.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteOffset, kibibytes, slot } from '../../src/base/units.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset } from '../../log/geometry.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

export interface CutAfterRoundOptions extends OneSeed {
  /** The superblock after which the cut comes. */
  readonly point: 'horizon' | 'settled';
  /** Of which round; the first. Later ones find less room, and slots are used again sooner. */
  readonly round?: number;
  /** How many device operations after it. */
  readonly operations: number;
  readonly skipSyncs?: ReadonlySet<SyncPoint>;
  /** The cut takes what is not synced of superblocks and checkpoints, and nothing else. */
  readonly takesSuperblocks?: boolean;
}

export async function runCutAfterRound(options: CutAfterRoundOptions): Promise<void> {
  const world = new SimWorld(options.seed);
  const power = new PowerSupply(world);
  const sim = new SimVolume(power, {
    slots: 16,
    requestBytesMax: kibibytes(48),
    ringBytes: kibibytes(2048),
    skipSyncs: options.skipSyncs ?? new Set(),
  });
  const model = new VolumeModel(sim.geometry.size);
  await world.run(() => sim.format(power.life));
  await power.runLife(async (life) => {
    const volume = await sim.open(life);
    aim(volume, power, options);
    const { random } = world;
    for (let i = 0; i < 2000; i++) {
      options.onStep?.();
      const content = random.bytes(BLOCK_BYTES);
      const offset = random.below(model.blocks) * BLOCK_BYTES;
      model.write(offset, content);
      await volume.live().write(byteOffset(offset), content, { fua: false });
    }
  });
  if (power.alive) power.cut();
  if (options.takesSuperblocks) takeSuperblocks(sim);
  power.restore();
  await world.run(async () => {
    const volume = await sim.open(power.life);
    const { head } = volume.core;
    assert(head <= model.head, 'nothing is recovered that was not written');
    // A round may begin at once, and end the older moment: that is no loss.
    const horizon = volume.core.horizon.generation;
    await compare(volume, model, horizon).catch((error: unknown) => {
      const passed = isVarveError(error, 'MOMENT_GONE') || isVarveError(error, 'MOMENT_OUTSIDE');
      if (!passed || volume.core.horizon.generation === horizon) throw error;
    });
    await compare(volume, model, head);
    volume.core.check();
  });
}

/** After a kill: the page cache has all of it. */
function takeSuperblocks({ log, geometry }: SimVolume): void {
  const bytes = new Uint8Array(slotOffset(geometry, slot(0)));
  log.platter.readDurable(0, bytes);
  const cached = new Uint8Array(log.size - bytes.length);
  log.platter.read(bytes.length, cached);
  log.corrupt(0, bytes);
  log.corrupt(bytes.length, cached);
}

async function compare(volume: Volume, model: VolumeModel, generation: number): Promise<void> {
  const device = volume.openMoment(await volume.resolve(`gen=${generation}`));
  const target = new Uint8Array(model.size);
  await device.read(byteOffset(0), target);
  await device.close();
  const expected = model.bytesAt(0, model.size, generation);
  assert(Buffer.compare(target, expected) === 0, `the state is that of generation ${generation}`);
}

function aim(volume: Volume, power: PowerSupply, options: CutAfterRoundOptions): void {
  const { log } = volume.core;
  let left = options.round ?? 1;
  const turn = (point: 'horizon' | 'settled'): void => {
    if (point !== options.point || --left !== 0) return;
    const loss = options.takesSuperblocks ? 'kill' : 'cut';
    power.plan({ loss, afterOperations: options.operations });
  };
  const publish = log.publish.bind(log);
  log.publish = async (patch, point) => {
    await publish(patch, point);
    if (point === 'horizon') turn('horizon');
  };
  const publishCheckpoint = log.publishCheckpoint.bind(log);
  log.publishCheckpoint = async (make, patch) => {
    await publishCheckpoint(make, patch);
    turn('settled');
  };
}
