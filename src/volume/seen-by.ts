/** Who sees a version of a block: the moments from its own generation until the block changed next. */
import { generation as generationOf, type Block, type Generation } from '../base/units.ts';
import type { Core } from './core.ts';
import type { SeenBy } from './report.ts';

/** A report names so many snapshots, and counts the rest. */
const SNAPSHOTS_NAMED_MAX = 5;

/** @param from - a generation at which the block has the version */
export function seenBy(core: Core, block: Block, from: Generation): SeenBy {
  const first = Math.max(from, core.horizon.generation);
  const end = nextVersion(core, block, first);
  const to = end === undefined ? core.head : end - 1;
  return { live: end === undefined, from: first, to, ...namedSnapshots(core, first, to) };
}

/** Snapshots of the moments [from, to]. */
export function namedSnapshots(
  core: Core,
  from: number,
  to: number,
): Pick<SeenBy, 'snapshots' | 'snapshotsMore'> {
  const found = [...core.catalogue.snapshots.values()].filter(
    ({ generation }) => generation >= from && generation <= to,
  );
  return {
    snapshots: found.slice(0, SNAPSHOTS_NAMED_MAX).map(({ label }) => label),
    snapshotsMore: Math.max(0, found.length - SNAPSHOTS_NAMED_MAX),
  };
}

/** The first generation above `after` that changed the block, or undefined. */
function nextVersion(core: Core, block: Block, after: number): number | undefined {
  const newestAt = (at: number): number =>
    core.index.find(block, generationOf(at)) === 0 ? 0 : core.index.foundGeneration;
  if (newestAt(core.head) <= after) return undefined;
  // What is the newest grows with the generation that is asked at: halving finds the first change.
  let low = after;
  let high: number = core.head;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (newestAt(middle) > after) high = middle;
    else low = middle;
  }
  return newestAt(high);
}
