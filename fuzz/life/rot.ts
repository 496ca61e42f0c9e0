/** Where bytes rot: each kind names the places on the disks that it touches. */
import { unreachable } from '../../src/base/assert.ts';
import { BLOCK_BYTES, slot as slotOf, type Slot } from '../../src/base/units.ts';
import { SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { checkpointOffset, slotOffset } from '../../log/geometry.ts';
import { undoGeometry } from '../../log/undo-survey.ts';
import type { SimVolume } from '../../test/sim/sim-volume.ts';
import type { DiskName, Oracle } from './oracle.ts';
import { SECTOR_BYTES } from './scar.ts';

/** Bytes change at rest. */
export const ROTS = [
  'rot-payload',
  'rot-batch',
  'rot-segment',
  'rot-summary',
  'rot-superblock',
  'rot-superblocks',
  'rot-checkpoint',
  'rot-free-slot',
  'rot-final',
  'rot-sums',
  'rot-undo',
] as const;
export type Rot = (typeof ROTS)[number];

export interface RotPlace {
  readonly disk: DiskName;
  readonly offset: number;
  readonly length: number;
}

export interface RotTarget {
  readonly volume: Volume;
  readonly sim: SimVolume;
  readonly oracle: Oracle;
  /** Which of those there are: in [0, 1). */
  readonly part: number;
}

function picked<T>(list: readonly T[], part: number): T | undefined {
  return list[Math.floor(part * list.length)];
}

export function rotPlaces(rot: Rot, target: RotTarget): readonly RotPlace[] {
  const { volume, sim, part } = target;
  const { geometry } = volume.core.log;
  const inLog = (offset: number, length: number): RotPlace => ({ disk: 'log', offset, length });
  const copies = SUPERBLOCK_BLOCKS.map((block) => inLog(block * BLOCK_BYTES, SECTOR_BYTES));
  switch (rot) {
    case 'rot-superblock':
      return copies.slice(part < 0.5 ? 0 : 1, part < 0.5 ? 1 : 2);
    case 'rot-superblocks':
      return copies;
    case 'rot-checkpoint':
      return [inLog(checkpointOffset(geometry, part < 0.5 ? 0 : 1), SECTOR_BYTES)];
    case 'rot-final': {
      const block = Math.floor(part * (sim.final.size / BLOCK_BYTES));
      return [{ disk: 'final', offset: block * BLOCK_BYTES, length: BLOCK_BYTES }];
    }
    case 'rot-sums': {
      const sector = Math.floor(part * (sim.sums.size / SECTOR_BYTES));
      return [{ disk: 'sums', offset: sector * SECTOR_BYTES, length: SECTOR_BYTES }];
    }
    case 'rot-undo': {
      const slots = volume.core.undo.slotsUsed;
      if (slots === 0) return [];
      const undo = undoGeometry(sim.undo.size, geometry.segmentBytes);
      const inside = ((part * slots) % 1) * (undo.segmentBytes / BLOCK_BYTES);
      const start = slotOffset(undo, slotOf(Math.floor(part * slots)));
      const offset = start + Math.floor(inside) * BLOCK_BYTES;
      return [{ disk: 'undo', offset, length: BLOCK_BYTES }];
    }
    case 'rot-batch':
    case 'rot-free-slot':
    case 'rot-payload':
    case 'rot-segment':
    case 'rot-summary':
      return slotPlaces(rot, target).map((offset) => inLog(offset, BLOCK_BYTES));
    default:
      return unreachable(rot);
  }
}

/** Offsets of blocks in slots. */
function slotPlaces(rot: Rot, { volume, oracle, part }: RotTarget): readonly number[] {
  const { segments, geometry } = volume.core.log;
  const start = (slot: Slot): number => slotOffset(geometry, slot);
  if (rot === 'rot-payload') {
    const lsn = picked(oracle.payloads(volume), part);
    const segment = segments.live.findLast(({ firstLsn }) => lsn !== undefined && firstLsn <= lsn);
    if (lsn === undefined || segment === undefined) return [];
    return [start(segment.slot) + BLOCK_BYTES + lsn - segment.firstLsn];
  }
  if (rot === 'rot-free-slot') {
    const used = new Set<number>(segments.live.map(({ slot }) => slot));
    const slots = Array.from({ length: geometry.slotCount }, (_, slot) => slot);
    const free = picked(
      slots.filter((slot) => !used.has(slot)),
      part,
    );
    return free === undefined ? [] : [start(slotOf(free)), start(slotOf(free)) + BLOCK_BYTES];
  }
  const segment = picked(segments.live, part);
  if (segment === undefined) return [];
  const at = start(segment.slot);
  if (rot === 'rot-segment') return [at];
  if (rot === 'rot-batch') return [at + BLOCK_BYTES];
  const end = at + geometry.segmentBytes;
  return [end - BLOCK_BYTES, end - 2 * BLOCK_BYTES];
}
