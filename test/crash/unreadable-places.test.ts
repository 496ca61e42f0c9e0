/**
 * One sector that can't be read, in each place that an opening comes by. Most of them it does not
 * need: then the volume opens, and what lay there is EIO, alone. Where the history may be another one
 * with it, the volume is refused, and nothing is cut off.
 */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, kibibytes, mebibytes, slot } from '../../src/base/units.ts';
import { KIND_DATA, KIND_RECORD, SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { endOf, entryOf } from '../../log/batch.ts';
import { CHECKPOINT_OFFSET, slotOffset } from '../../log/geometry.ts';
import { decodeSegmentHeader } from '../../log/summary.ts';
import { decodeSuperblock } from '../../log/superblock.ts';
import type { SimVolume, SimVolumeOptions } from '../sim/sim-volume.ts';
import { Bench, blocksOf, get, put, unreadable } from './bench.ts';
import { batchesOn, dataOf, logBlock, type PlacedBatch } from './log-batches.ts';

const BLOCKS = 22;

/** A place on the log, and the blocks of the disk whose content lies there. */
interface Place {
  readonly at: number;
  readonly bad?: readonly number[];
}

/** The newest version of each block is `blocksOf(block + 1)`. */
async function writeAll(volume: Volume): Promise<void> {
  for (let block = 0; block < BLOCKS; block++) await put(volume, block, blocksOf(block + 1), true);
}

async function made(options: SimVolumeOptions = {}): Promise<Bench> {
  const bench = await Bench.create(1, options);
  await bench.use(writeAll);
  return bench;
}

/** All blocks are right but those, which are EIO; read-only as well. */
async function opensBut(bench: Bench, bad: readonly number[]): Promise<void> {
  for (const readOnly of [true, false]) {
    await bench.world.run(async () => {
      const volume = await bench.sim.open(bench.power.life, { readOnly });
      const failed = await unreadable(volume.live(), 0, BLOCKS);
      expect([...failed]).toEqual(bad.map((block) => [block, 'DEVICE_IO EIO']));
      for (let block = 0; block < BLOCKS; block++) {
        if (failed.has(block)) continue;
        expect(await get(volume.live(), block)).toEqual(blocksOf(block + 1));
      }
      await volume.close();
    });
  }
}

function refuse({ sim }: Bench, at: number): () => void {
  return sim.log.failRead({ offset: at, length: 1 });
}

function must<T>(found: T | undefined): T {
  if (found === undefined) throw new Error('there is one');
  return found;
}

function kindsOf({ batch }: PlacedBatch): readonly number[] {
  return Array.from({ length: batch.header.entryCount }, (_, i) => entryOf(batch, i).kind);
}

/** Where slots begin that show a segment, by its sequence. */
function segmentsOn({ sim }: Bench): readonly number[] {
  const found: { at: number; sequence: number }[] = [];
  for (let i = 0; i < sim.geometry.slotCount; i++) {
    const at = slotOffset(sim.geometry, slot(i));
    const header = decodeSegmentHeader(logBlock(sim, at), sim.uuid);
    if (header !== undefined) found.push({ at, sequence: header.sequence });
  }
  return found.sort((a, b) => a.sequence - b.sequence).map(({ at }) => at);
}

function newestSegment(bench: Bench): number {
  return must(segmentsOn(bench).at(-1));
}

function lastPayload({ sim }: Bench): Place {
  const { at, block } = must(batchesOn(sim).flatMap(dataOf).at(-1));
  return { at, bad: [block] };
}

/** Where the next batch would have come to lie. */
function endOfLog(sim: SimVolume): number {
  const { at, batch } = must(batchesOn(sim).at(-1));
  return at + endOf(batch) - batch.header.lsn;
}

function unusedBlock({ sim }: Bench): Place {
  return { at: endOfLog(sim) + BLOCK_BYTES };
}

function unusedSlot({ sim }: Bench): number {
  return slotOffset(sim.geometry, slot(sim.geometry.slotCount - 2));
}

function besideRecord({ sim }: Bench): Place {
  const both = batchesOn(sim).find((one) => {
    const kinds = kindsOf(one);
    return kinds.includes(KIND_RECORD) && kinds.includes(KIND_DATA);
  });
  const { at, block } = must(dataOf(must(both))[0]);
  return { at, bad: [block] };
}

function footer(bench: Bench): Place {
  return { at: must(segmentsOn(bench)[0]) + bench.sim.geometry.segmentBytes - BLOCK_BYTES };
}

const NOT_NEEDED: readonly [string, (bench: Bench) => Place][] = [
  ['a payload of the newest segment, flushed and stated', lastPayload],
  ['a payload of another segment', ({ sim }) => must(placeOf(sim, 3))],
  ['the block at the very end', ({ sim }) => ({ at: endOfLog(sim) })],
  ['a block behind the end of the newest segment', unusedBlock],
  ['a payload beside a record of the catalogue', besideRecord],
  ['one copy of the superblock', () => ({ at: SUPERBLOCK_BLOCKS[0] * BLOCK_BYTES })],
  ['the other copy', () => ({ at: SUPERBLOCK_BLOCKS[1] * BLOCK_BYTES })],
  ['the footer of a summary', footer],
  ['the header of a slot that was never used', (bench) => ({ at: unusedSlot(bench) })],
  ['the block behind such a header', (bench) => ({ at: unusedSlot(bench) + BLOCK_BYTES })],
];

function placeOf(sim: SimVolume, block: number): Place | undefined {
  const found = batchesOn(sim)
    .flatMap(dataOf)
    .find((one) => one.block === block);
  return found && { at: found.at, bad: [block] };
}

describe('of the log, after an end in order', () => {
  // Each of these refused the whole volume.
  test.each(NOT_NEEDED)('%s is no reason to refuse', async (_, find) => {
    const bench = await made();
    expect(segmentsOn(bench).length).toBeGreaterThan(1);
    const { at, bad = [] } = find(bench);
    refuse(bench, at);
    await opensBut(bench, bad);
  });

  const NEEDED: readonly [string, (bench: Bench) => readonly number[]][] = [
    ['both superblocks', () => SUPERBLOCK_BLOCKS.map((block) => block * BLOCK_BYTES)],
    ['the checkpoint that is named', () => [CHECKPOINT_OFFSET]],
    ['the header of a live segment', (bench) => [must(segmentsOn(bench)[1])]],
    ['a batch header of the newest one', ({ sim }) => [must(batchesOn(sim).at(-2)).at]],
    [
      'a record that no checkpoint has',
      ({ sim }) => {
        const record = must(batchesOn(sim).find((one) => kindsOf(one).includes(KIND_RECORD)));
        return [record.at + BLOCK_BYTES * (1 + kindsOf(record).indexOf(KIND_RECORD))];
      },
    ],
  ];

  test.each(NEEDED)('%s: refused, until it reads again', async (_, find) => {
    const bench = await made();
    const heal = find(bench).map((at) => refuse(bench, at));
    expect(await bench.openError()).toMatchObject({ code: 'DEVICE_IO' });
    for (const one of heal) one();
    await opensBut(bench, []);
  });

  test('a record that the checkpoint has is not read', async () => {
    const bench = await Bench.create(1);
    await bench.use(async (volume) => {
      for (let i = 0; volume.core.counters.rounds < 2; i++) {
        await put(volume, 30 + (i % 30), blocksOf(1000 + i));
        if (i % 8 === 0) await volume.mark(`m${i}`);
      }
      await writeAll(volume);
    });
    const superblock = must(decodeSuperblock(logBlock(bench.sim, 0)));
    const record = batchesOn(bench.sim).find(
      (one) => one.batch.header.lsn >= superblock.tailLsn && kindsOf(one).includes(KIND_RECORD),
    );
    const { at } = must(record);
    refuse(bench, at + BLOCK_BYTES * (1 + kindsOf(must(record)).indexOf(KIND_RECORD)));
    await opensBut(bench, []);
  });

  // Each block behind the bad one had asked for the whole window again, which failed again.
  test('a bad block in a window costs no more than finding it', async () => {
    const bench = await made({ segmentBytes: mebibytes(2), requestBytesMax: kibibytes(64) });
    const { counters } = bench.sim.log;
    const cost = async (): Promise<number> => {
      const before = counters.bytesRead;
      await bench.world.run(() => bench.sim.open(bench.power.life, { readOnly: true }));
      return counters.bytesRead - before;
    };
    const whole = await cost();
    refuse(bench, newestSegment(bench) + 200 * BLOCK_BYTES);
    expect((await cost()) - whole).toBeLessThan(mebibytes(8));
  });
});

describe('of the log, after a crash', () => {
  async function crashed(): Promise<Bench> {
    const bench = await Bench.create(1);
    await bench.lose('kill', async (volume) => {
      await writeAll(volume);
      // An empty batch states that all of it is durable.
      await bench.world.sleep(50_000);
    });
    return bench;
  }

  test('a payload of the newest segment that is stated durable is EIO alone', async () => {
    const bench = await crashed();
    const { at, bad } = lastPayload(bench);
    refuse(bench, at);
    await opensBut(bench, must(bad));
  });

  // The summary of a full segment begins right behind its last batch, where another header could be.
  test('the first block of a summary costs nothing', async () => {
    const bench = await Bench.create(5, { slots: 24 });
    const { sim } = bench;
    await bench.lose('kill', async (volume) => {
      for (let i = 0; i < 60; i++) await put(volume, i, blocksOf(i + 1), i % 7 === 0);
      await volume.live().flush();
      // Nothing states yet that all of it is durable: each batch is looked at.
      await bench.world.sleep(3000);
    });
    const last = must(batchesOn(sim).findLast(({ at }) => at < slotOffset(sim.geometry, slot(2))));
    const offset = last.at + endOf(last.batch) - last.batch.header.lsn;
    sim.log.failRead({ offset, length: BLOCK_BYTES });
    await bench.use(async (volume) => {
      const { head } = volume.core;
      expect(head).toBeGreaterThan(20);
      for (let i = 0; i < head; i++) expect(await get(volume.live(), i)).toEqual(blocksOf(i + 1));
    });
  });

  // It may be a header that states that something before the end was durable.
  test('a block behind the end is refused', async () => {
    const bench = await crashed();
    refuse(bench, unusedBlock(bench).at);
    expect(await bench.openError()).toMatchObject({ code: 'DEVICE_IO' });
  });

  test('what alone states that a rotten payload was durable is refused, and nothing is cut off', async () => {
    const bench = await crashed();
    const { log } = bench.sim;
    const all = batchesOn(bench.sim);
    const last = must(all.findLast((one) => dataOf(one).length > 0));
    const tellers = all.filter(({ batch }) => batch.header.durableLsn >= endOf(last.batch));
    expect(tellers).toHaveLength(1);
    log.corruptBit(last.at + BLOCK_BYTES + 100, 1);
    const heal = refuse(bench, must(tellers[0]).at);
    expect(await bench.openError()).toMatchObject({ code: 'DEVICE_IO' });
    heal();
    await bench.use(async (volume) => {
      expect([...(await unreadable(volume.live(), 0, BLOCKS))]).toEqual([
        [BLOCKS - 1, 'BLOCK_CORRUPT EIO'],
      ]);
    });
  });
});
