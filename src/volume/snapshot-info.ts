/** What snapshots are and hold: alone, and together with others. */
import { byteCount, type Generation } from '../base/units.ts';
import type { Amount } from '../../index/held-counts.ts';
import type { Snapshot } from './catalogue-entries.ts';
import type { Core } from './core.ts';
import type { SnapshotInfo } from './report.ts';
import { lookedUpTo } from './retention.ts';
import { keptBy, type Rule } from './retention-policy.ts';

type Known = {
  readonly seen: ReadonlyMap<Generation, Amount>;
  readonly rules: ReadonlyMap<Generation, readonly Rule[]>;
};

/** By generation, then by name; without what they hold, which takes a look at everything kept. */
export function snapshotsInOrder({ catalogue }: Core): readonly Snapshot[] {
  return [...catalogue.snapshots.values()].sort(
    (a, b) => a.generation - b.generation || (a.label < b.label ? -1 : 1),
  );
}

/** In the same order. */
export function snapshotInfos(core: Core): readonly SnapshotInfo[] {
  const rules = rulesOf(core);
  const seen = core.undo.seen();
  return snapshotsInOrder(core).map((one) => info(core, one, { seen, rules }));
}

/** Of one that has just been made. */
export function newSnapshotInfo(core: Core, snapshot: Snapshot): SnapshotInfo {
  const rules = new Map<Generation, readonly Rule[]>();
  const isAlone = (core.pins.at(snapshot.generation)?.reasons.length ?? 0) <= 1;
  // Nothing that was replaced is as new as what was pinned first just now.
  const seen = isAlone ? new Map<Generation, Amount>() : core.undo.seen();
  return info(core, snapshot, { seen, rules });
}

function rulesOf(core: Core): ReadonlyMap<Generation, readonly Rule[]> {
  const automatic = core.catalogue
    .automatic()
    .map(({ generation, momentWallUs: wallUs }) => ({ generation, wallUs }));
  return keptBy(core.retention, automatic, lookedUpTo(core));
}

function info(core: Core, snapshot: Snapshot, { seen, rules }: Known): SnapshotInfo {
  const { label, generation, lineage, momentWallUs, createdWallUs, isAutomatic } = snapshot;
  const exclusive = exclusiveBytes(core, generation);
  return {
    label,
    generation,
    lineage,
    momentWallUs,
    createdWallUs,
    isAutomatic,
    keptFor: isAutomatic ? (rules.get(generation) ?? []) : [],
    exclusiveBytes: byteCount(exclusive),
    sharedBytes: byteCount((seen.get(generation)?.bytes ?? 0) - exclusive),
  };
}

/** What deleting a snapshot gives back: nothing while others are of the same moment. */
function exclusiveBytes({ undo, pins }: Core, generation: Generation): number {
  const same = pins.at(generation)?.reasons.filter(({ kind }) => kind === 'snapshot') ?? [];
  return same.length > 1 ? 0 : undo.exclusive(generation).bytes;
}
