/**
 * A volume's devices as bytes, and what may befall those of the log: changes that a decoder meets
 * behind a checksum that fits, blocks that are elsewhere, twice, older or of another volume.
 */
import { crc32c } from '../../src/base/crc32c.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import {
  BATCH_MAGIC,
  BATCH_PREFIX_BYTES,
  CHECKPOINT_MAGIC,
  ENTRY_BYTES,
  SEGMENT_MAGIC,
  SUMMARY_MAGIC,
  SUPERBLOCK_MAGIC,
  batchEntry,
  batchHeader,
  catalogueEntry,
  checkpointHeader,
  segmentHeader,
  segmentSummary,
  superblock,
} from '../../src/format/layouts.ts';
import { offsetOf, type RecordLayout } from '../../src/format/record.ts';
import type { LogGeometry } from '../../log/geometry.ts';
import { PowerSupply } from '../../test/sim/power-supply.ts';
import type { SeededRandom } from '../../test/sim/random.ts';
import type { SimDisk } from '../../test/sim/sim-disk.ts';
import { SimVolume } from '../../test/sim/sim-volume.ts';
import { SimWorld } from '../../test/sim/sim-world.ts';
import { mutateFields, reseal } from '../format/mutation.ts';

export interface Image {
  /** Of the world that the volume was made in; the same seed gives the same volume's identity. */
  readonly seed: number;
  readonly log: Uint8Array;
  readonly final: Uint8Array;
  readonly sums: Uint8Array;
}

const STRUCTURES: ReadonlyMap<string, RecordLayout> = new Map([
  [SUPERBLOCK_MAGIC, superblock],
  [CHECKPOINT_MAGIC, checkpointHeader],
  [SEGMENT_MAGIC, segmentHeader],
  [BATCH_MAGIC, batchHeader],
  [SUMMARY_MAGIC, segmentSummary],
]);

export function smallVolume(seed: number): SimVolume {
  return new SimVolume(new PowerSupply(new SimWorld(seed, { stepsMax: 1_000_000 })), {
    size: kibibytes(160),
    slots: 9,
    segmentBytes: kibibytes(32),
    requestBytesMax: kibibytes(20),
    ringBytes: kibibytes(64),
  });
}

function bytesOf(disk: SimDisk): Uint8Array {
  const bytes = new Uint8Array(disk.size);
  disk.platter.read(0, bytes);
  return bytes;
}

/** A volume that lived for a while: rounds, snapshots, marks, lineages; ended in order, or not. */
export async function makeImage(seed: number): Promise<Image> {
  const sim = smallVolume(seed);
  const { power } = sim;
  const random = power.world.fork('image');
  await power.runLife((life) => sim.format(life));
  const lives = random.between(1, 3);
  for (let i = 0; i < lives; i += 1) {
    await power.runLife(async (life) => {
      const volume = await sim.open(life);
      const disk = volume.live();
      for (let left = random.between(5, 60); left > 0; left -= 1) {
        const length = random.between(1, 20_000);
        const offset = byteOffset(random.below(160 * 1024 - length));
        const fua = random.chance(0.1);
        const kind = random.below(10);
        if (kind < 7) await disk.write(offset, random.bytes(length), { fua });
        else if (kind === 7) await disk.trim(offset, byteCount(length), { fua });
        else if (kind === 8) await disk.zero(offset, byteCount(length), { fua, allocate: fua });
        else await disk.flush();
        if (random.chance(0.05)) await volume.mark(`mark-${i}-${left}`);
        if (random.chance(0.03)) await volume.createSnapshot(`snapshot-${i}-${left}`);
        for (const { label } of volume.snapshots()) await volume.deleteSnapshot(label);
      }
      if (random.chance(0.5)) await volume.close();
    });
    power.kill();
    power.restore();
  }
  return { seed, log: bytesOf(sim.log), final: bytesOf(sim.final), sums: bytesOf(sim.sums) };
}

function structureAt(log: Uint8Array, block: number): RecordLayout | undefined {
  const at = block * BLOCK_BYTES;
  return STRUCTURES.get(Buffer.from(log.subarray(at, at + 8)).toString('latin1'));
}

const ENTRY_COUNT_AT = offsetOf(batchHeader, 'entry_count');
const PAYLOAD_BLOCKS_AT = offsetOf(batchHeader, 'payload_blocks');
const SEQUENCE_AT = offsetOf(segmentHeader, 'sequence');

class Mutator {
  readonly #random: SeededRandom;
  readonly #log: Uint8Array;
  readonly #view: DataView;
  readonly #geometry: LogGeometry;

  constructor(random: SeededRandom, log: Uint8Array, geometry: LogGeometry) {
    this.#random = random;
    this.#log = log;
    this.#view = new DataView(log.buffer, log.byteOffset, log.byteLength);
    this.#geometry = geometry;
  }

  get #blocks(): number {
    return this.#log.length / BLOCK_BYTES;
  }

  block(n: number): Uint8Array {
    return this.#log.subarray(n * BLOCK_BYTES, (n + 1) * BLOCK_BYTES);
  }

  #usedBytes(at: number): number {
    return BATCH_PREFIX_BYTES + this.#view.getUint16(at + ENTRY_COUNT_AT, true) * ENTRY_BYTES;
  }

  /** One structure's fields, and its checksum again, most of the time. */
  structure(): void {
    const random = this.#random;
    const places: number[] = [];
    for (let n = 0; n < this.#blocks; n += 1) {
      if (structureAt(this.#log, n) !== undefined) places.push(n);
    }
    const n = random.pick(places);
    const of = structureAt(this.#log, n);
    if (of === undefined) return;
    const bytes = this.block(n);
    if (of === batchHeader && random.chance(0.6)) {
      const count = this.#view.getUint16(n * BLOCK_BYTES + ENTRY_COUNT_AT, true);
      const at = BATCH_PREFIX_BYTES + random.below(Math.max(1, count)) * ENTRY_BYTES;
      mutateFields(random, batchEntry, bytes.subarray(at, at + ENTRY_BYTES));
    } else if (of === checkpointHeader && random.chance(0.6)) {
      this.#checkpointEntry(n);
    } else mutateFields(random, of, bytes);
    if (random.chance(0.1)) return;
    const used = of === batchHeader ? this.#usedBytes(n * BLOCK_BYTES) : of.size;
    reseal(bytes, used);
  }

  #checkpointEntry(n: number): void {
    const area = this.#log.subarray(n * BLOCK_BYTES);
    const count = this.#view.getUint32(
      n * BLOCK_BYTES + offsetOf(checkpointHeader, 'entry_count'),
      true,
    );
    const body = area.subarray(checkpointHeader.size).subarray(0, count * catalogueEntry.size);
    const whole = Math.floor(body.length / catalogueEntry.size);
    if (whole === 0) return;
    const at = this.#random.below(whole) * catalogueEntry.size;
    mutateFields(this.#random, catalogueEntry, body.subarray(at, at + catalogueEntry.size));
    const sumAt = n * BLOCK_BYTES + offsetOf(checkpointHeader, 'body_checksum');
    this.#view.setUint32(sumAt, crc32c(body), true);
  }

  /** Blocks that are elsewhere: copied, swapped, erased, or noise. */
  blocks(): void {
    const random = this.#random;
    const [from, to] = [random.below(this.#blocks), random.below(this.#blocks)];
    switch (random.below(5)) {
      case 0:
        this.block(to).set(this.block(from));
        return;
      case 1: {
        const kept = this.block(from).slice();
        this.block(from).set(this.block(to));
        this.block(to).set(kept);
        return;
      }
      case 2:
        this.block(to).fill(0);
        return;
      case 3:
        random.fill(this.block(to));
        return;
      default:
        this.#log[random.below(this.#log.length)] = random.below(256);
    }
  }

  /** Whole slots that are elsewhere, or there twice. */
  slots(): void {
    const { segmentBytes, slotCount, checkpointBytes } = this.#geometry;
    const first = kibibytes(64) + 2 * checkpointBytes;
    const slot = (): number => first + this.#random.below(slotCount) * segmentBytes;
    const from = slot();
    this.#log.copyWithin(slot(), from, from + segmentBytes);
  }

  /**
   * Every chain as it has to be, whatever the headers say otherwise; summaries, which repeat them,
   * are taken away. So replay goes on behind what was changed.
   */
  rechain(): void {
    const { segmentBytes, slotCount, checkpointBytes } = this.#geometry;
    const first = (kibibytes(64) + 2 * checkpointBytes) / BLOCK_BYTES;
    const slots: { readonly n: number; readonly sequence: bigint }[] = [];
    for (let slot = 0; slot < slotCount; slot += 1) {
      const n = first + (slot * segmentBytes) / BLOCK_BYTES;
      if (structureAt(this.#log, n) !== segmentHeader) continue;
      const sequence = this.#view.getBigUint64(n * BLOCK_BYTES + SEQUENCE_AT, true);
      slots.push({ n, sequence });
    }
    let chain: number | undefined;
    for (const { n } of slots.toSorted((a, b) => (a.sequence < b.sequence ? -1 : 1))) {
      chain = this.#rechainSlot(n, segmentBytes / BLOCK_BYTES, chain);
    }
  }

  #rechainSlot(n: number, blocks: number, before: number | undefined): number {
    const chainOf = (of: RecordLayout, at: number, chain: number | undefined): number => {
      if (chain !== undefined) this.#view.setUint32(at + offsetOf(of, 'chain'), chain, true);
      reseal(this.block(at / BLOCK_BYTES), of === batchHeader ? this.#usedBytes(at) : of.size);
      return this.#view.getUint32(at + 8, true);
    };
    let chain = chainOf(segmentHeader, n * BLOCK_BYTES, before);
    for (let at = n + 1; at < n + blocks && structureAt(this.#log, at) === batchHeader;) {
      chain = chainOf(batchHeader, at * BLOCK_BYTES, chain);
      at += 1 + this.#view.getUint16(at * BLOCK_BYTES + PAYLOAD_BLOCKS_AT, true);
    }
    if (structureAt(this.#log, n + blocks - 1) === segmentSummary) {
      this.block(n + blocks - 1).fill(0);
    }
    return chain;
  }
}

/** What a log device may come to hold. */
export function mutatedLog(
  random: SeededRandom,
  image: Image,
  geometry: LogGeometry,
  other: Image,
): Uint8Array {
  const log = image.log.slice();
  const mutator = new Mutator(random, log, geometry);
  for (let left = random.between(1, 4); left > 0; left -= 1) {
    const way = random.below(10);
    if (way < 6) mutator.structure();
    else if (way < 8) mutator.blocks();
    else if (way === 8) mutator.slots();
    else {
      const n = random.below(log.length / BLOCK_BYTES);
      mutator.block(n).set(other.log.subarray(n * BLOCK_BYTES, (n + 1) * BLOCK_BYTES));
    }
  }
  if (random.chance(0.7)) mutator.rechain();
  return log;
}
