/**
 * `varve scrub` and `varve check`: everything that a volume has on its devices is verified, at a
 * pace that leaves the devices to clients. A scrub also repairs what another copy still has; a check
 * writes nothing, and looks at the index as well.
 */
import { BLOCK_BYTES, blockCount, byteCount } from '../base/units.ts';
import type { Core } from './core.ts';
import type { OtherCopies } from './other-copies.ts';
import type { CheckReport, Damage, ScrubReport } from './report.ts';
import { ScrubFinal } from './scrub-final.ts';
import { ScrubLog } from './scrub-log.ts';
import { ScrubRun, type ScrubOptions } from './scrub-run.ts';
import { ScrubUndo } from './scrub-undo.ts';

interface Done {
  readonly run: ScrubRun;
  readonly log: ScrubLog;
  readonly final: ScrubFinal;
}

async function scrubAll(core: Core, copies: OtherCopies, options: ScrubOptions): Promise<Done> {
  const run = new ScrubRun(core, copies, options);
  const log = new ScrubLog(run);
  const final = new ScrubFinal(run);
  const undo = new ScrubUndo(run);
  run.total = log.bytes + final.bytes + undo.bytes;
  await log.all();
  run.done = log.bytes;
  await final.all();
  await undo.all();
  return { run, log, final };
}

/** @throws VarveError CLOSED when the volume is closed, VOLUME_FAILED, and what `progress` throws */
export async function scrubVolume(
  core: Core,
  copies: OtherCopies,
  options: ScrubOptions,
): Promise<ScrubReport> {
  const startUs = core.world.clock.monotonicUs();
  const { run } = await scrubAll(core, copies, options);
  return {
    ok: run.left === 0,
    repaired: run.repaired,
    left: run.left,
    damages: run.damages,
    checked: run.checked,
    bytesRead: byteCount(run.bytesRead),
    tookMs: (core.world.clock.monotonicUs() - startUs) / 1000,
  };
}

export async function checkVolume(
  core: Core,
  copies: OtherCopies,
  options: Pick<ScrubOptions, 'progress' | 'onRelease'>,
): Promise<CheckReport> {
  const all = { ...options, repair: false, bytesPerSecond: 0 };
  const { run, log, final } = await scrubAll(core, copies, all);
  core.check();
  run.checked.push(
    `index: ${core.index.versions} versions, ${core.index.rangeRecords} ranges, counts of ` +
      `${core.log.segments.live.length} segments, recomputed`,
  );
  const problems = run.damages.map((damage) => problemOf(damage));
  if (run.left > problems.length) problems.push(`and ${run.left - problems.length} more`);
  return {
    ok: run.left === 0,
    batches: log.batches,
    versions: core.index.versions,
    logBytes: byteCount(log.logBytes),
    finalBlocks: blockCount(final.data),
    sumsSectors: final.sectors,
    problems,
    checked: run.checked,
  };
}

function problemOf({ place, what, block }: Damage): string {
  const where = block === undefined ? '' : `, byte ${block * BLOCK_BYTES} of the disk`;
  return `${place}: ${what}${where}`;
}
