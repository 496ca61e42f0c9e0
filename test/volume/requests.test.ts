/** The requests of the window, as they come out of the log again: against what was asked for. */
import { describe, expect, it, vi } from 'vitest';
import { assert } from '../../src/base/assert.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, generation, kibibytes } from '../../src/base/units.ts';
import type { RequestPage, RequestRecord } from '../../src/device/request-record.ts';
import { roundTarget } from '../../src/volume/round-target.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, get, put } from '../crash/bench.ts';
import type { SeededRandom } from '../sim/random.ts';

interface Asked {
  readonly blocks: readonly number[];
  readonly isZero: boolean;
  readonly fua: boolean;
}

/** All pages, as one. */
async function requestsOf(
  volume: Volume,
  after: number,
  to: number,
  unitsMax?: number,
): Promise<RequestPage & { pages: number }> {
  const requests: RequestRecord[] = [];
  const flushes: RequestPage['flushes'][number][] = [];
  for (let pages = 1; ; pages++) {
    const from = requests.at(-1)?.generation ?? generation(after);
    const page = await volume.requests({ after: from, to: generation(to), unitsMax });
    requests.push(...page.requests);
    flushes.push(...page.flushes);
    if (page.isEnd) return { requests, flushes: [...new Set(flushes)], isEnd: true, pages };
  }
}

async function ask(volume: Volume, random: SeededRandom): Promise<Asked | 'flush'> {
  const device = volume.live();
  const kind = random.below(10);
  if (kind === 0) {
    await device.flush();
    return 'flush';
  }
  const blocks = volume.size / BLOCK_BYTES;
  const first = random.below(blocks - 20);
  const count = 1 + random.below(12);
  const list = Array.from({ length: count }, (_, at) => first + at);
  const fua = random.below(4) === 0;
  const [offset, length] = [byteOffset(first * BLOCK_BYTES), byteCount(count * BLOCK_BYTES)];
  if (kind === 1) await device.trim(offset, length, { fua });
  else if (kind === 2) await device.zero(offset, length, { fua, allocate: true });
  else if (kind === 3) {
    // In part at both ends: both blocks are of it, whole.
    const inside = byteOffset(offset + 512);
    await device.write(inside, random.bytes(length - 1024), { fua });
  } else await device.write(offset, random.bytes(length), { fua });
  return { blocks: list, isZero: kind === 1 || kind === 2, fua };
}

async function expectSame(
  volume: Volume,
  { generation: at, fua, parts }: RequestRecord,
  asked: Asked,
): Promise<void> {
  const blocks = parts.flatMap(({ start, count }) =>
    Array.from({ length: count }, (_, i) => start + i),
  );
  expect(blocks.toSorted((a, b) => a - b)).toEqual(asked.blocks);
  expect(fua).toBe(asked.fua);
  const moment = volume.openMoment({ generation: at });
  for (const { start, count, crcs } of parts) {
    expect(crcs === undefined).toBe(asked.isZero);
    for (let i = 0; i < count; i++) {
      const content = await get(moment, start + i);
      expect(crcs?.[i] ?? crc32c(new Uint8Array(BLOCK_BYTES))).toBe(crc32c(content));
    }
  }
  await moment.close();
}

describe('the requests of the window', () => {
  it('come out of ring and log as they were asked for, from any place on', async () => {
    const bench = await Bench.create(41, { ringBytes: kibibytes(256) });
    const asked: Asked[] = [];
    const flushes: number[] = [];
    const fill = async (volume: Volume, count: number): Promise<void> => {
      const { random } = bench.world;
      while (asked.length < count) {
        const one = await ask(volume, random);
        if (one === 'flush') flushes.push(asked.length);
        else asked.push(one);
      }
      // A round that goes on would move the horizon while it is read.
      await bench.world.sleep(1_000_000);
      const from = Number((await volume.info()).horizon.generation);
      const all = await requestsOf(volume, from, count);
      expect(all.requests.map((request) => request.generation)).toEqual(
        Array.from({ length: count - from }, (_, at) => from + at + 1),
      );
      for (const request of all.requests) {
        const wanted = asked[request.generation - 1];
        if (wanted !== undefined) await expectSame(volume, request, wanted);
      }
      expect(all.flushes).toEqual([...new Set(flushes)].filter((at) => at >= from && at > 0));
      for (let i = 0; i < 20; i++) {
        const after = from + random.below(count - from + 1);
        const to = after + random.below(count - after + 1);
        const part = await requestsOf(volume, after, to, 40);
        expect(part.requests).toEqual(all.requests.slice(after - from, to - from));
        if (part.requests.length > 5) expect(part.pages).toBeGreaterThan(1);
      }
    };
    await bench.use((volume) => fill(volume, 80));
    // After a restart they all come from the log.
    await bench.use((volume) => fill(volume, 80));
    await bench.use((volume) => fill(volume, 140));
  });

  it('are those that count, where a cut took some and their numbers came again', async () => {
    const bench = await Bench.create(42);
    await bench.lose('cut', async (volume) => {
      await put(volume, 1, blocksOf(1), true);
      await put(volume, 2, blocksOf(2));
      await put(volume, 3, blocksOf(3));
    });
    await bench.use(async (volume) => {
      const head = Number((await volume.info()).head.generation);
      await put(volume, 9, blocksOf(9));
      const { requests } = await requestsOf(volume, 0, head + 1);
      expect(requests.at(-1)?.parts[0]?.start).toBe(9);
      expect(requests).toHaveLength(head + 1);
    });
  });

  /**
   * A flush that came while the ring was full left no mark: it was answered, and history did not
   * know of it, so that what it covered seemed to be at the mercy of a power cut.
   */
  it('have a flush among them that came while the ring was full', async () => {
    const bench = await Bench.create(44);
    await bench.use(async (volume) => {
      const { stream } = volume.core.log;
      await put(volume, 1, blocksOf(1));
      const { head } = volume.core;
      // As it is while writers wait for a sync.
      Object.defineProperty(stream, 'room', { value: () => 'ring', configurable: true });
      await volume.live().flush();
      Reflect.deleteProperty(stream, 'room');
      await put(volume, 2, blocksOf(2));
      const { flushes } = await requestsOf(volume, 0, head + 1);
      expect(flushes).toEqual([head]);
      expect(Number((await volume.resolve('flush-1')).generation)).toBe(head);
    });
  });

  it('are refused beyond the window', async () => {
    const bench = await Bench.create(43);
    await bench.use(async (volume) => {
      await put(volume, 1, blocksOf(1));
      const outside = { code: 'MOMENT_OUTSIDE' };
      const page = (after: number, to: number): Promise<unknown> =>
        volume.requests({ after: generation(after), to: generation(to) });
      await expect(page(0, 2)).rejects.toMatchObject(outside);
      await expect(page(1, 0)).rejects.toMatchObject(outside);
      await expect(page(1, 1)).resolves.toMatchObject({ requests: [], isEnd: true });
    });
  });
});

// A round that came to its end while a header was read recycled the segment with its last reader.
describe('a page of requests, and a round that recycles what it has just read', () => {
  it.each(['from the beginning', 'from where the round ends'])('%s', async (from) => {
    const { world, sim, power } = await Bench.create(3);
    await world.run(async () => {
      const volume = await sim.open(power.life);
      const { core } = volume;
      let asked = 0;
      const more = async (): Promise<void> => {
        await put(volume, asked % 40, blocksOf(asked), true);
        // Records in batches of their own stand behind the last request of a segment.
        await volume.createSnapshot('s');
        await volume.deleteSnapshot('s');
        asked++;
      };
      while (core.log.segments.freeSlots > 4) await more();
      const target = roundTarget(core, { urgent: false, youngFrom: undefined });
      assert(target !== undefined, 'a round is due soon');
      const isBeyond = from !== 'from the beginning';
      if (isBeyond) await volume.requests({ after: generation(target - 1), to: target });
      const readSlot = core.log.readSlot.bind(core.log);
      vi.spyOn(core.log, 'readSlot').mockImplementationOnce(async (at, bytes) => {
        while (core.settled < target) await world.sleep(10);
        await readSlot(at, bytes);
      });
      const after = isBeyond ? target : generation(1);
      const page = volume.requests({ after, to: core.head }).then(
        ({ requests }) => requests[0]?.generation,
        (error: unknown) => (isVarveError(error) ? error.code : error),
      );
      while (core.counters.rounds === 0) await more();
      // Where the round after it has begun already, that is refused, too.
      expect([isBeyond ? target + 1 : 0, 'MOMENT_OUTSIDE']).toContain(await page);
      await volume.close();
    });
  });
});
