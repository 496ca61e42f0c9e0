/**
 * Faults of disks and clock, planted beside a running volume. Each tells the oracle what it may
 * excuse, and most can be healed: the operator changes the cable, or puts the file back.
 */
import { unreachable } from '../../src/base/assert.ts';
import { BLOCK_BYTES, slot } from '../../src/base/units.ts';
import { SUMS_ENTRIES } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { slotOffset, summaryBlocksMax } from '../../log/geometry.ts';
import type { SeededRandom } from '../../test/sim/random.ts';
import type { SimVolume } from '../../test/sim/sim-volume.ts';
import type { SimWorld } from '../../test/sim/sim-world.ts';
import type { DiskName, Oracle } from './oracle.ts';
import { rotPlaces, ROTS, type Rot } from './rot.ts';
import { Scar, SECTOR_BYTES } from './scar.ts';

const DISKS: readonly DiskName[] = ['log', 'final', 'sums', 'undo'];

/** An operation claims success and did not do it, or did it elsewhere. */
export const LIES = ['lost-write', 'astray-write', 'astray-read'] as const;
/** An operation fails, or takes long, for a while. */
export const TROUBLES = [
  'unreadable',
  'unwritable',
  'failed-sync',
  'full',
  'slow',
  'gone',
  'clock-jump',
] as const;

export const FAULTS = [...ROTS, ...LIES, ...TROUBLES] as const;
export type FaultKind = (typeof FAULTS)[number];

export interface FaultStep {
  readonly fault: FaultKind;
  /** Where: a part of 10,000 of whatever there is to choose from. */
  readonly where: number;
  /** How: meaning depends on the fault. */
  readonly how: number;
}

export type Lie = (typeof LIES)[number];
type Trouble = Exclude<(typeof TROUBLES)[number], 'unreadable' | 'clock-jump'>;

function isOne<T extends string>(list: readonly T[], fault: string): fault is T {
  return list.some((one) => one === fault);
}

interface FaultPlace {
  readonly world: SimWorld;
  readonly sim: SimVolume;
  readonly oracle: Oracle;
  readonly random: SeededRandom;
  /** The disk on which operations lie; one, because two that lie alike can't be told from truth. */
  readonly liar: DiskName;
}

export class Faults {
  readonly #place: FaultPlace;
  readonly #scars: Scar[] = [];
  /** The volume, once it is open. */
  volume: Volume | undefined;
  /** How often each kind took effect. */
  readonly counts: Record<string, number> = {};

  constructor(place: FaultPlace) {
    this.#place = place;
    for (const name of DISKS) {
      place.sim[name].faults.watch = (offset, length) => {
        for (const scar of this.#scars) if (scar.disk === name) scar.overwritten(offset, length);
      };
    }
  }

  plant({ fault, where, how }: FaultStep): void {
    const part = where / 10_000;
    if (isOne(ROTS, fault)) this.#rot(fault, part, how);
    else if (isOne(LIES, fault)) this.#lie(fault, how);
    else if (fault === 'unreadable') this.#unreadable(part, how);
    else if (fault === 'clock-jump') {
      this.#count(fault);
      this.#place.world.jumpWall((where - 5000) * 10 ** (3 + (how % 4)));
    } else this.#trouble(fault, how);
  }

  /**
   * Faults left zeros in the block's home and in the page of its checksum as well. That is how a
   * block that was never written looks, the one limit that docs/RELIABILITY.md names.
   */
  isBlanked(block: number): boolean {
    const sector = Math.floor(block / SUMS_ENTRIES) * SECTOR_BYTES;
    const page = Math.floor(sector / BLOCK_BYTES) * BLOCK_BYTES;
    const isBlank = (disk: DiskName, offset: number): boolean =>
      this.#scars.some((scar) => scar.disk === disk && scar.blanks(offset, BLOCK_BYTES));
    return isBlank('final', block * BLOCK_BYTES) && isBlank('sums', page);
  }

  /** Whatever fails, fails no more; what was lost or changed stays so. */
  endTroubles(): void {
    const { sim, oracle } = this.#place;
    for (const name of DISKS) sim[name].faults.clear();
    oracle.endTroubles();
  }

  /**
   * What an opening did not find in the log was given up with it: a write that was lost does not come
   * back later.
   */
  opened(volume: Volume): void {
    const { segments, geometry, writer } = volume.core.log;
    const isKept = (scar: Scar): boolean =>
      scar.disk !== 'log' ||
      scar.touches(0, slotOffset(geometry, slot(0))) ||
      segments.live.some(({ slot: at, firstLsn, endLsn }) => {
        const start = slotOffset(geometry, at);
        const used = BLOCK_BYTES + ((endLsn ?? writer.durable.lsn) - firstLsn);
        const summary =
          start + geometry.segmentBytes - BLOCK_BYTES * (1 + summaryBlocksMax(geometry));
        return (
          scar.touches(start, start + used) || scar.touches(summary, start + geometry.segmentBytes)
        );
      });
    const kept = this.#scars.filter(isKept);
    this.#scars.splice(0, this.#scars.length, ...kept);
  }

  /** Everything is put back as it should be. */
  heal(): void {
    this.endTroubles();
    const { sim, oracle } = this.#place;
    oracle.mayRefuse = false;
    for (const scar of this.#scars.splice(0).reverse()) {
      if (!scar.heal(sim[scar.disk])) oracle.mayRefuse = true;
    }
  }

  #count(fault: string): void {
    this.counts[fault] = (this.counts[fault] ?? 0) + 1;
  }

  #disk(how: number): DiskName {
    return DISKS[how % DISKS.length] ?? 'log';
  }

  #rot(rot: Rot, part: number, how: number): void {
    const { oracle, sim } = this.#place;
    const { volume } = this;
    if (volume === undefined) return;
    const places = rotPlaces(rot, { volume, sim, oracle, part });
    for (const { disk, offset, length } of places) {
      this.#corrupt(volume, disk, offset, length, how);
    }
    if (places.length === 0) return;
    this.#count(rot);
    // Payloads are looked at when they are read; all else may be missed at an opening.
    if (rot !== 'rot-payload' && rot !== 'rot-free-slot') oracle.mayRefuse = true;
  }

  /** Some bits flip, or sectors turn to noise or zeros. */
  #corrupt(volume: Volume, name: DiskName, offset: number, length: number, how: number): void {
    const { sim, oracle, random } = this.#place;
    const disk = sim[name];
    const before = new Uint8Array(length);
    disk.platter.read(offset, before);
    const after = before.slice();
    const at = random.below(length);
    if (how % 3 === 0) after[at] = (after[at] ?? 0) ^ (1 << random.below(8));
    else if (how % 3 === 1) after.set(random.bytes(Math.min(SECTOR_BYTES, length - at)), at);
    else after.fill(0);
    oracle.touch(volume, name, offset, length);
    disk.corrupt(offset, after);
    this.#scars.push(new Scar(name, offset, after, before));
  }

  #lie(fault: Lie, how: number): void {
    const { sim, oracle, liar } = this.#place;
    const disk = sim[liar];
    const shift = ((how % 7) - 3) * BLOCK_BYTES * (1 + (how % 5)) + (how % 2) * BLOCK_BYTES;
    if (fault === 'astray-read') {
      disk.faults.lieOnRead({
        shift,
        told: ({ offset, length }) => {
          this.#count(fault);
          oracle.touch(this.volume, liar, offset, length);
          oracle.mayRefuse = true;
        },
      });
      return;
    }
    disk.faults.lieOnWrite({
      ...(fault === 'astray-write' && { shift }),
      told: ({ offset, length, bytes, astray }) => {
        if (astray === offset) return;
        this.#count(fault);
        oracle.mayRefuse = true;
        const before = new Uint8Array(length);
        disk.platter.read(offset, before);
        oracle.touch(this.volume, liar, offset, length);
        this.#scars.push(new Scar(liar, offset, before, bytes));
        if (astray === undefined) return;
        const victim = new Uint8Array(length);
        disk.platter.read(astray, victim);
        oracle.touch(this.volume, liar, astray, length);
        this.#scars.push(new Scar(liar, astray, bytes, victim));
      },
    });
  }

  #unreadable(part: number, how: number): void {
    const { sim, oracle } = this.#place;
    const name = this.#disk(how);
    const disk = sim[name];
    const offset = Math.floor(part * (disk.size / BLOCK_BYTES)) * BLOCK_BYTES;
    const length = BLOCK_BYTES * (1 + (how % 2));
    this.#count('unreadable');
    oracle.unreadable(this.volume, name, offset, length);
    disk.failRead({ offset, length });
  }

  #trouble(fault: Trouble, how: number): void {
    const { sim, oracle } = this.#place;
    const name = this.#disk(how);
    const disk = sim[name];
    this.#count(fault);
    if (fault !== 'slow') oracle.trouble(name);
    switch (fault) {
      case 'slow':
        disk.faults.slowness = 1000;
        break;
      case 'gone':
        oracle.mayFailReads = true;
        oracle.wasRefused = true;
        oracle.mayRefuse = true;
        disk.faults.isGone = true;
        break;
      case 'full':
        disk.setFull(true);
        break;
      case 'failed-sync':
        disk.failNextSync({ dropDirty: how % 4 !== 0, evict: how % 2 === 1 });
        break;
      case 'unwritable':
        disk.failWrite({ offset: 0, length: disk.size });
        break;
      default:
        unreachable(fault);
    }
  }
}
