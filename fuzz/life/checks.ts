/** Reads of the volume beside the model: right, or an error that a fault excuses; law by law. */
import { isVarveError, type VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteOffset, generation as generationOf } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { RANGE_RECORDS_MAX } from '../../src/volume/water.ts';
import { law } from './law.ts';
import type { RunState } from './state.ts';

/** Faults that damage nothing. */
const HARMLESS: ReadonlySet<string> = new Set(['slow', 'clock-jump']);

const UNREADABLE = ['BLOCK_CORRUPT', 'DEVICE_IO'] as const;

export function isUnreadable(error: unknown): error is VarveError {
  return UNREADABLE.some((code) => isVarveError(error, code));
}

/** A device and the generations that a read of it may show, at the beginning and at the end. */
export interface View {
  readonly device: BlockDevice;
  readonly which: 3 | 4 | 5;
  first(): number;
  last(): number;
}

export function liveView(state: RunState, volume: Volume): View {
  const head = (): number => state.model.head;
  return { device: volume.live(), which: 5, first: head, last: head };
}

export function momentView(device: BlockDevice, generation: number, which: 3 | 4): View {
  return { device, which, first: () => generation, last: () => generation };
}

/** Reads a range; where that fails, block by block, so that only what a fault excuses fails. */
export async function readRange(
  state: RunState,
  view: View,
  offset: number,
  length: number,
): Promise<void> {
  if (length === 0) return;
  const target = new Uint8Array(length);
  const first = view.first();
  state.count('reads');
  try {
    await view.device.read(byteOffset(offset), target);
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    await readFailed(state, view, { offset, length, first, error });
    return;
  }
  compare(state, view, { offset, target, first });
}

interface Failed {
  readonly offset: number;
  readonly length: number;
  readonly first: number;
  readonly error: VarveError;
}

async function readFailed(state: RunState, view: View, failed: Failed): Promise<void> {
  const { offset, length, first, error } = failed;
  const end = offset + length;
  const one = Math.floor(offset / BLOCK_BYTES) === Math.floor((end - 1) / BLOCK_BYTES);
  if (one) {
    const block = Math.floor(offset / BLOCK_BYTES);
    const isLate = isVarveError(error, 'DEVICE_IO') && state.oracle.wasRefused;
    const isExcused = isLate || excused(state, block, first, view.last());
    law(
      view.which,
      isExcused,
      () => `block ${block} is readable: no fault touched it, and it fails with ${error.message}`,
    );
    state.count('eio');
    return;
  }
  for (let at = offset; at < end;) {
    const next = Math.min(end, (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES);
    await readRange(state, view, at, next - at);
    at = next;
  }
}

/** Some version that the read may have shown was touched by a fault. */
function excused(state: RunState, block: number, first: number, last: number): boolean {
  const { model, oracle } = state;
  for (let at = last; ; at = model.generationAt(block, at) - 1) {
    if (oracle.mayFail(block, at)) return true;
    if (model.generationAt(block, at) <= first) return false;
  }
}

function compare(
  state: RunState,
  view: View,
  got: { readonly offset: number; readonly target: Uint8Array; readonly first: number },
): void {
  const { offset, target, first } = got;
  const last = view.last();
  const end = offset + target.length;
  for (let at = offset; at < end;) {
    const block = Math.floor(at / BLOCK_BYTES);
    const next = Math.min(end, (block + 1) * BLOCK_BYTES);
    const part = target.subarray(at - offset, next - offset);
    const right = state.model.wasBetween(block, at - block * BLOCK_BYTES, part, [first, last]);
    const isBlank = !right && part.every((byte) => byte === 0) && state.faults.isBlanked(block);
    if (isBlank) state.count('blanked twice');
    law(
      view.which,
      right || isBlank,
      () => `block ${block} is as it was at generation ${first} to ${last}`,
    );
    at = next;
  }
}

/** Everything, with nobody writing meanwhile. */
export async function checkAll(state: RunState, volume: Volume, moments: number): Promise<void> {
  checkCounts(state, volume);
  await readRange(state, liveView(state, volume), 0, state.model.size);
  await checkSnapshots(state, volume);
  for (let i = 0; i < moments; i++) await checkSomeMoment(state, volume);
  checkCounts(state, volume);
}

/** Index and counts recomputed; bounds of memory (law 6). */
export function checkCounts(state: RunState, volume: Volume): void {
  const { core } = volume;
  core.check();
  const isSound = Object.keys(state.faults.counts).every((one) => HARMLESS.has(one));
  law(5, !isSound || core.counters.readErrors === 0, 'nothing is told to be damaged that is not');
  const { geometry, ring } = core.log;
  const blocksMax = (geometry.slotCount * geometry.segmentBytes) / BLOCK_BYTES;
  law(6, core.index.versions <= blocksMax, 'the index holds no more than the log does');
  law(6, core.index.rangeRecords <= RANGE_RECORDS_MAX, 'ranges in the window are bounded');
  law(6, ring.head - core.log.writer.durable.lsn <= ring.size, 'what is not durable fits the ring');
}

async function checkSomeMoment(state: RunState, volume: Volume): Promise<void> {
  const { horizon } = volume.core;
  const span = state.model.head - horizon.generation + 1;
  const generation = horizon.generation + state.random.below(span);
  await withMoment(state, volume, generation, async (device) => {
    await readRange(state, momentView(device, generation, 3), 0, state.model.size);
    state.count('moments');
  });
}

/** A moment that is not pinned may be given up for writers, and then says so. */
async function withMoment(
  state: RunState,
  volume: Volume,
  generation: number,
  work: (device: BlockDevice) => Promise<void>,
): Promise<void> {
  let device: BlockDevice | undefined;
  try {
    const moment = await volume.resolve(`gen=${generation}`);
    law(3, moment.generation === generationOf(generation), 'gen=N is that generation');
    device = volume.openMoment(moment);
    await work(device);
  } catch (error) {
    const gone = isVarveError(error, 'MOMENT_GONE') || isVarveError(error, 'MOMENT_OUTSIDE');
    if (!gone) throw error;
    law(3, mayGo(state, volume, generation), 'a moment of the window opens and stays');
  } finally {
    await device?.close();
  }
}

/**
 * Whether an open moment may end: for writers, where snapshots leave no room for what it needs. A
 * horizon that could not be made durable is taken back.
 */
export function mayGo(state: RunState, { core }: Volume, generation: number): boolean {
  const { logFailures, wasUndoFull } = state.oracle;
  return core.horizon.generation > generation || wasUndoFull || logFailures > 0;
}

/** Snapshots are those that were made, each at its generation, each readable. */
export async function checkSnapshots(state: RunState, volume: Volume): Promise<void> {
  const { snapshots, unsure } = state;
  const found = new Map(volume.snapshots().map(({ label, generation }) => [label, generation]));
  for (const [label, generation] of snapshots) {
    const got = found.get(label);
    if (unsure.has(label) && got === undefined) continue;
    law(
      4,
      got === generationOf(generation),
      () => `snapshot ${label} is kept at generation ${generation}, and not at ${String(got)}`,
    );
    const device = volume.openMoment(await volume.resolve(label));
    await readRange(state, momentView(device, generation, 4), 0, state.model.size);
    await device.close();
    state.count('snapshots');
  }
  for (const label of found.keys()) law(4, snapshots.has(label), `snapshot ${label} was made`);
}

/** After an opening: what had no answer is decided now. */
export function settleSnapshots(state: RunState, volume: Volume, isExact: boolean): void {
  const { snapshots, unsure, oracle } = state;
  const found = new Map(volume.snapshots().map(({ label, generation }) => [label, generation]));
  for (const label of snapshots.keys()) {
    if (found.has(label) || (isExact && !unsure.has(label))) continue;
    snapshots.delete(label);
  }
  for (const [label, generation] of found) {
    if (isExact) continue;
    // A deletion behind the cut that a fault excuses has not happened; its images may be freed.
    if (!snapshots.has(label) || unsure.has(label)) oracle.suspectImages(volume, generation);
    if (!snapshots.has(label)) snapshots.set(label, generation);
  }
  unsure.clear();
}
