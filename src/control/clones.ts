/**
 * Volumes that are based on a snapshot of another one.
 *
 * Invariant: which volumes need a snapshot is known from their own records, and from nowhere else.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import { checkLabel, LABEL_LENGTH_MAX } from '../volume/moment.ts';
import type { OriginDisk } from '../volume/origin-disk.ts';
import type { SnapshotInfo } from '../volume/report.ts';
import type { Volume } from '../volume/volume.ts';
import type { BaseRecord, VolumeBase } from './base-record.ts';
import type { OpenedBase } from './open-base.ts';
import type { VolumeRecord } from './volume-record.ts';

/** How what a clone is based on is had. */
export type OpenOrigin = (base: VolumeBase) => Promise<OpenedBase>;

/** Volumes that are based on each other, one after the other: each read may go through all. */
const DEPTH_MAX = 16;
const NAMED_MAX = 5;
const PREFIX = 'clone-';

interface Records {
  names(): Promise<readonly string[]>;
  record(name: string): Promise<VolumeRecord>;
  durableRecord(name: string): Promise<VolumeRecord>;
}

/** The name that the origin has by now. @throws VarveError BASE_MISSING */
export async function originName(records: Records, base: VolumeBase): Promise<string> {
  const is = async (name: string): Promise<boolean> => {
    try {
      return (await records.record(name)).uuid === base.uuid;
    } catch (error) {
      if (isVarveError(error)) return false;
      throw error;
    }
  };
  if (await is(base.name)) return base.name;
  for (const name of await records.names()) if (await is(name)) return name;
  throw new VarveError('BASE_MISSING', `volume "${base.name}" (${base.uuid})`);
}

/** @throws VarveError BASE_MISSING, BASE_CHANGED, naming the origin */
export function originDisk(volume: Volume, base: VolumeBase): OriginDisk {
  try {
    const disk = volume.openOrigin(base);
    if (disk.size !== base.size) {
      throw new VarveError('BASE_CHANGED', `got ${disk.size} bytes, expected ${base.size}`);
    }
    return disk;
  } catch (error) {
    if (!isVarveError(error)) throw error;
    throw new VarveError(error.code, `volume "${volume.name}": ${error.detail}`, { cause: error });
  }
}

/** Names of the volumes that are based on a snapshot. */
export async function clonesOf(
  records: Records,
  uuid: Uuid,
  snapshot: string,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of await records.names()) {
    // A base that was dropped, and that a power cut brings back, is still needed.
    const { base } = await mayBeClone(records, name);
    if (base?.kind !== 'volume') continue;
    if (base.uuid === uuid && base.snapshot === snapshot) found.push(name);
  }
  return found;
}

async function mayBeClone(records: Records, name: string): Promise<VolumeRecord> {
  try {
    return await records.durableRecord(name);
  } catch (error) {
    if (!isVarveError(error)) throw error;
    const detail = `volume "${name}", which may be a clone of it: ${error.detail}`;
    const next = `mend its volume.json, or move its folder out of the volume directory`;
    throw new VarveError(error.code, detail, { cause: error, next });
  }
}

/** @throws VarveError SNAPSHOT_IN_USE, naming the clones; where a record can't be read, as that says */
export async function needNoClones(
  records: Records,
  { name, label }: { readonly name: string; readonly label: string },
): Promise<void> {
  const { uuid } = await records.record(name);
  const clones = await clonesOf(records, uuid, label);
  if (clones.length === 0) return;
  const more = clones.length > NAMED_MAX ? ` and ${clones.length - NAMED_MAX} more` : '';
  const named = clones.slice(0, NAMED_MAX).join(', ');
  throw new VarveError('SNAPSHOT_IN_USE', `${name}@${label} is needed by ${named}${more}`);
}

/** @throws VarveError BASE_DEEP when a clone of this volume would stand on too many others */
export async function needShallow(records: Records, name: string): Promise<void> {
  let { base }: { base: BaseRecord | undefined } = await records.record(name);
  for (let depth = 1; base?.kind === 'volume'; depth++) {
    if (depth >= DEPTH_MAX) {
      throw new VarveError('BASE_DEEP', `"${name}" stands on ${depth} others already`);
    }
    ({ base } = await records.record(await originName(records, base)));
  }
}

/** A snapshot that a clone can be based on. */
export interface KeptMoment {
  readonly snapshot: SnapshotInfo;
  /** It was made for this clone. */
  readonly isNew: boolean;
}

/**
 * The snapshot of a moment, which is made unless there is one by that name, or one for clones: others,
 * or this one, by an earlier try that was killed. One with a name that nobody gave it may go by itself,
 * and is not used.
 * @param moment - undefined: now
 */
export async function keepMoment(
  volume: Volume,
  moment: string | undefined,
  clone: string,
): Promise<KeptMoment> {
  const snapshots = volume.snapshots();
  const named = snapshots.find(({ label }) => label === moment && isGiven(label));
  if (named !== undefined) return { snapshot: named, isNew: false };
  const generation =
    moment === undefined ? volume.core.shown : (await volume.resolve(moment)).generation;
  const shared = snapshots.find(
    (one) => one.generation === generation && one.label.startsWith(PREFIX),
  );
  if (shared !== undefined) return { snapshot: shared, isNew: false };
  const taken = new Set([...snapshots, ...(await volume.info()).marks].map(({ label }) => label));
  let label = labelFor(clone, '');
  for (let i = 2; taken.has(label); i++) label = labelFor(clone, `-${i}`);
  return { snapshot: await volume.createSnapshot(label, moment), isNew: true };
}

/** Names may be as long as labels: what is put before and behind takes the place of their ends. */
function labelFor(clone: string, suffix: string): string {
  return (PREFIX + clone).slice(0, LABEL_LENGTH_MAX - suffix.length) + suffix;
}

function isGiven(label: string): boolean {
  try {
    checkLabel(label);
    return true;
  } catch (error) {
    if (isVarveError(error)) return false;
    throw error;
  }
}
