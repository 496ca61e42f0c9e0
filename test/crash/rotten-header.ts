/**
 * A rotten bit at the end of the log, between two lives. In one of the newest headers: what the next
 * opening shows is there at the one behind a power cut, or that one refuses. In a payload: the volume
 * opens, whatever a cut took behind it.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { uuidBytes } from '../../src/base/identity.ts';
import { BLOCK_BYTES, kibibytes, slot } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { KIND_DATA, KIND_RECORD } from '../../src/format/layouts.ts';
import { decodeBatch, entryOf, type Batch } from '../../log/batch.ts';
import { slotOffset } from '../../log/geometry.ts';
import type { SeededRandom } from '../sim/random.ts';
import { Bench, blocksOf, put } from './bench.ts';

const NEWEST = 4;

interface RottenOptions {
  readonly seed: number;
  readonly onStep?: () => void;
}

/** A volume that was written to until it was lost. */
async function lost(
  loss: 'cut' | 'kill',
  operations: number,
  { seed, onStep }: RottenOptions,
): Promise<{ readonly bench: Bench; readonly random: SeededRandom }> {
  const bench = await Bench.create(seed, { segmentBytes: kibibytes(32), slots: 16 });
  const random = bench.world.random.fork('rot');
  await bench.untilLost(loss, async (volume, plan) => {
    plan({ loss, afterOperations: 4 + random.below(operations) });
    for (let i = 0; ; i++) {
      onStep?.();
      const count = 1 + random.below(4);
      const puts = Array.from({ length: count }, (_, k) =>
        put(volume, (i * 7 + k) % 64, blocksOf(i)),
      );
      await Promise.all(puts);
      if (random.chance(0.7)) await volume.live().flush();
      if (random.chance(0.3)) await bench.world.sleep(10_000);
    }
  });
  return { bench, random };
}

/** @returns how many of the two openings were not refused */
export async function runRottenHeader(options: RottenOptions): Promise<number> {
  const { bench, random } = await lost('kill', 20, options);
  const batches = batchesOf(bench);
  const rotten = batches.at(-1 - random.below(Math.min(NEWEST, batches.length)));
  if (rotten === undefined) return 0;
  bench.sim.log.corruptBit(rotten.at + 100, 1);
  let shown = 0;
  const first = await opens(bench, (volume) => {
    shown = volume.core.head;
  });
  const second = await opens(bench, (volume) => {
    const { head } = volume.core;
    assert(head >= shown, `generation ${shown} was shown, and ${head} is the newest now`);
  });
  return Number(first) + Number(second);
}

/** @returns 1 when something rotted */
export async function runRottenPayload(options: RottenOptions): Promise<number> {
  const { bench, random } = await lost('cut', 60, options);
  const payloads = batchesOf(bench).flatMap(({ data }) => data);
  if (payloads.length === 0) return 0;
  const rotten = payloads.at(-1 - random.below(Math.min(4 * NEWEST, payloads.length))) ?? 0;
  bench.sim.log.corruptBit(rotten + random.below(BLOCK_BYTES), 1);
  const isOpen = await opens(bench, () => undefined);
  assert(isOpen, 'a rotten payload costs its block, and not the volume');
  return 1;
}

/** Opens, looks, and the power is cut. @returns false when it is refused */
async function opens(bench: Bench, look: (volume: Volume) => void): Promise<boolean> {
  try {
    await bench.lose('cut', (volume) => {
      look(volume);
      return Promise.resolve();
    });
    return true;
  } catch (error) {
    if (!isVarveError(error, 'VOLUME_CORRUPT')) throw error;
    return false;
  }
}

interface BatchPlace {
  /** Of its header. */
  readonly at: number;
  /** Of the payloads that are data. */
  readonly data: readonly number[];
}

/** Where batches lie on the log, in the order in which they were written. */
function batchesOf({ sim }: Bench): readonly BatchPlace[] {
  const found: (BatchPlace & { readonly lsn: number })[] = [];
  const uuid = uuidBytes(sim.uuid);
  const { geometry } = sim;
  for (let at: number = slotOffset(geometry, slot(0)); at < geometry.logBytes; at += BLOCK_BYTES) {
    const block = new Uint8Array(BLOCK_BYTES);
    sim.log.platter.read(at, block);
    const batch = decodeBatch(block, uuid);
    if (batch === undefined) continue;
    found.push({ at, lsn: batch.header.lsn, data: dataOf(batch, at) });
  }
  return found.sort((one, other) => one.lsn - other.lsn);
}

/** Where payloads of a batch lie; those of records are read by every opening, and refuse it. */
function dataOf(batch: Batch, at: number): readonly number[] {
  const data: number[] = [];
  let payload = at;
  for (let i = 0; i < batch.header.entryCount; i++) {
    const { kind } = entryOf(batch, i);
    if (kind === KIND_DATA || kind === KIND_RECORD) payload += BLOCK_BYTES;
    if (kind === KIND_DATA) data.push(payload);
  }
  return data;
}
