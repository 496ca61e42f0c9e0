/**
 * The decoders of what is on disk, each with a valid structure whose fields were changed and whose
 * checksum was made good again: they give a value, nothing, or an error with a code. What they
 * give has one form, and lies where a volume can be.
 */
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { uuidBytes, uuidText } from '../../src/base/identity.ts';
import {
  block,
  byteCount,
  checksum,
  generation,
  lsn,
  micros,
  segmentSequence,
  slot,
} from '../../src/base/units.ts';
import {
  BLANK_ENTRY,
  decodeCatalogueEntry,
  encodeCatalogueEntry,
} from '../../src/format/catalogue.ts';
import {
  batchEntry,
  batchHeader,
  catalogueEntry,
  COUNT_END,
  GENERATION_END,
  segmentHeader,
  segmentSummary,
  SUMS_SECTOR_BYTES,
  sumsEntry,
  sumsHeader,
  superblock,
} from '../../src/format/layouts.ts';
import { viewOf } from '../../src/format/record.ts';
import { isSector, readSum, sealSector, sinceOf, writeSum } from '../../src/format/sums.ts';
import { decodeBatch, endOf, entryOf, sealBatch, usedBytes, writeEntry } from '../../log/batch.ts';
import { isGeometry, planGeometry } from '../../log/geometry.ts';
import {
  decodeSegmentHeader,
  decodeSummaryFooter,
  encodeSegmentHeader,
  encodeSummary,
} from '../../log/summary.ts';
import { decodeSuperblock, encodeSuperblock } from '../../log/superblock.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import type { Fuzzer } from '../options.ts';
import { mutateFields, reseal } from './mutation.ts';

const BLOCK = 4096;

/** The value, or undefined for what was not believed. */
function believed<T>(work: () => T | undefined): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return undefined;
  }
}

function superblocks(random: SeededRandom): void {
  const volume = uuidText(random.bytes(16));
  const position = lsn(random.below(1000) * BLOCK);
  const now = generation(random.below(2 ** 40));
  const geometry = planGeometry({ size: byteCount(2 ** 30), logSize: byteCount(2 ** 28) });
  const bytes = encodeSuperblock({
    volume,
    geometry,
    sequence: random.below(100),
    clean: random.chance(0.5),
    checkpointArea: random.chance(0.5) ? 1 : 0,
    checkpointSequence: random.below(100),
    tailSequence: segmentSequence(1 + random.below(100)),
    tailLsn: position,
    tailChain: checksum(random.next32()),
    horizon: { generation: now, lineage: volume, wallUs: micros(1e15), elapsedUs: micros(1e9) },
    undoSlots: random.below(100),
    settled: now,
    durable: now,
    durableLsn: position,
    headLineage: volume,
    chain: checksum(random.next32()),
  });
  assert(decodeSuperblock(bytes) !== undefined, 'what was encoded is believed');
  mutateFields(random, superblock, bytes);
  reseal(bytes, superblock.size);
  const found = believed(() => decodeSuperblock(bytes));
  if (found === undefined) return;
  assert(Buffer.compare(encodeSuperblock(found), bytes) === 0, 'a superblock has one form');
  assert(isGeometry(found.geometry), 'a log that is believed can be');
}

function segments(random: SeededRandom): void {
  const volume = uuidText(random.bytes(16));
  const bytes = encodeSegmentHeader(volume, {
    sequence: segmentSequence(1 + random.below(1000)),
    slot: slot(random.below(64)),
    chain: checksum(random.next32()),
    opening: random.below(2 ** 48),
    firstLsn: lsn(random.below(1000) * BLOCK),
    generation: generation(random.below(2 ** 40)),
    durableLsn: lsn(random.below(1000) * BLOCK),
  });
  assert(decodeSegmentHeader(bytes, volume) !== undefined, 'what was encoded is believed');
  mutateFields(random, segmentHeader, bytes);
  reseal(bytes, segmentHeader.size);
  const found = believed(() => decodeSegmentHeader(bytes, volume));
  if (found === undefined) return;
  assert(Buffer.compare(encodeSegmentHeader(volume, found), bytes) === 0, 'a header has one form');
  assert(found.firstLsn < COUNT_END && found.generation < GENERATION_END, 'it can be reached');
}

function summaries(random: SeededRandom): void {
  const volume = uuidText(random.bytes(16));
  const bodies = [random.bytes(200), random.bytes(128)];
  const whole = encodeSummary(volume, segmentSequence(3), lsn(BLOCK), bodies);
  const footer = whole.subarray(whole.length - BLOCK);
  assert(decodeSummaryFooter(footer, volume) !== undefined, 'what was encoded is believed');
  mutateFields(random, segmentSummary, footer);
  reseal(footer, segmentSummary.size);
  believed(() => decodeSummaryFooter(footer, volume));
}

function batches(random: SeededRandom): void {
  const volume = uuidText(random.bytes(16));
  const bytes = new Uint8Array(BLOCK);
  const count = random.below(8);
  for (let i = 0; i < count; i += 1) {
    writeEntry(viewOf(bytes), usedBytes(i), 2, 3, random.below(1000), random.below(1000), 0);
  }
  sealBatch(bytes, volume, {
    entryCount: count,
    lineage: volume,
    segment: segmentSequence(1 + random.below(100)),
    lsn: lsn(random.below(1000) * BLOCK),
    generation: generation(random.below(2 ** 40)),
    wallUs: micros(random.below(2 ** 50)),
    elapsedUs: micros(random.below(2 ** 40)),
    durable: generation(0),
    durableLsn: lsn(0),
    chain: checksum(random.next32()),
    payloadBlocks: 0,
  });
  const identity = uuidBytes(volume);
  assert(decodeBatch(bytes, identity) !== undefined, 'what was sealed is believed');
  if (count > 0 && random.chance(0.5)) {
    const at = usedBytes(random.below(count));
    mutateFields(random, batchEntry, bytes.subarray(at, at + batchEntry.size));
  } else mutateFields(random, batchHeader, bytes.subarray(0, batchHeader.size));
  reseal(bytes, usedBytes(viewOf(bytes).getUint16(14, true)));
  const found = believed(() => decodeBatch(bytes, identity));
  if (found === undefined) return;
  for (let i = 0; i < found.header.entryCount; i += 1) {
    assert(entryOf(found, i).kind <= 6, 'kinds are known');
  }
  assert(Number.isSafeInteger(endOf(found)), 'a batch ends where a number can say');
  const again = bytes.slice();
  sealBatch(again, volume, found.header);
  const { length } = found.bytes;
  assert(Buffer.compare(again.subarray(0, length), found.bytes) === 0, 'a batch has one form');
}

function catalogues(random: SeededRandom): void {
  const bytes = new Uint8Array(catalogueEntry.size);
  encodeCatalogueEntry({ ...BLANK_ENTRY, type: random.below(7), label: 'before' }, bytes);
  mutateFields(random, catalogueEntry, bytes);
  const found = believed(() => decodeCatalogueEntry(bytes));
  if (found === undefined) return;
  const again = new Uint8Array(catalogueEntry.size);
  // Text that is no UTF-8 reads as another one, which need not fit.
  if (found.label.includes('\u{fffd}') || found.label.includes('\0')) return;
  encodeCatalogueEntry(found, again);
  assert(Buffer.compare(again, bytes) === 0, 'an entry has one form');
}

function sums(random: SeededRandom): void {
  const seed = random.next32();
  const bytes = new Uint8Array(SUMS_SECTOR_BYTES);
  for (let n = 0; n < 31; n += 1) {
    writeSum(bytes, block(n), {
      kind: random.below(5),
      generation: generation(random.below(2 ** 40)),
      checksum: checksum(random.next32()),
    });
  }
  const sector = random.below(2 ** 30);
  const place = { sector, seed, since: generation(random.below(2 ** 40)) };
  sealSector(bytes, place);
  assert(isSector(bytes, sector, seed), 'what was sealed is believed');
  assert(!isSector(bytes, sector + 1, seed), 'and nowhere else');
  const sum = (): number => crc32c(bytes.subarray(8, SUMS_SECTOR_BYTES));
  // What its checksum is mixed with, to forge one.
  const mix = sum() ^ viewOf(bytes).getUint32(4, true);
  const at = sumsHeader.size + random.below(31) * sumsEntry.size;
  if (random.chance(0.5)) mutateFields(random, sumsHeader, bytes);
  else mutateFields(random, sumsEntry, bytes.subarray(at, at + sumsEntry.size));
  if (random.chance(0.9)) {
    viewOf(bytes).setUint32(4, (sum() ^ mix) >>> 0, true);
  }
  if (!isSector(bytes, sector, seed)) return;
  const again = new Uint8Array(SUMS_SECTOR_BYTES);
  for (let n = 0; n < 31; n += 1) writeSum(again, block(n), readSum(bytes, block(n)));
  sealSector(again, { ...place, since: sinceOf(bytes) });
  assert(Buffer.compare(again, bytes) === 0, 'a sector has one form');
}

const DECODERS = [superblocks, segments, summaries, batches, catalogues, sums] as const;

export const fuzzer: Fuzzer = {
  name: 'format-structures',
  runs: 5000,
  main({ seed, runs }) {
    const random = new SeededRandom(seed >>> 0);
    for (let run = 0; run < runs; run += 1) {
      for (const decoder of DECODERS) decoder(random);
    }
    return { structures: runs * DECODERS.length };
  },
};
