/** The judge of the kill rounds is judged: each kind of wrong content is refused by it. */
import { describe, expect, it } from 'vitest';
import { SECTOR_BYTES, SectorHistory, type SectorRequest } from './sector-history.ts';

const SECTORS = 8;

function history(): SectorHistory {
  return new SectorHistory(SECTORS * SECTOR_BYTES, 5);
}

function write(on: SectorHistory, from: number, to: number): SectorRequest {
  return on.make({ kind: 'write', from, to, fua: false });
}

/** The content of a disk with these numbers in its sectors. */
function disk(on: SectorHistory, numbers: readonly number[]): Buffer {
  const sectors = numbers.map((number) => {
    if (number === 0) return Buffer.alloc(SECTOR_BYTES);
    return Buffer.alloc(SECTOR_BYTES, on.stamp(number));
  });
  return Buffer.concat(sectors);
}

describe('what is read back', () => {
  it('is whole sectors', () => {
    const on = history();
    const content = disk(on, [1, 0, 0, 0, 0, 0, 0, 2]);
    expect([...on.decode(content)]).toEqual([1, 0, 0, 0, 0, 0, 0, 2]);
    content[SECTOR_BYTES - 1] = 1;
    expect(() => on.decode(content)).toThrow(/torn/);
  });

  it('is stamps of this disk', () => {
    const on = history();
    const foreign = new SectorHistory(SECTORS * SECTOR_BYTES, 6);
    expect(() => on.decode(disk(foreign, [1, 0, 0, 0, 0, 0, 0, 0]))).toThrow(/whole stamp/);
  });
});

describe('requests one after the other', () => {
  function three(): SectorHistory {
    const on = history();
    const first = write(on, 0, 4);
    on.answer(first);
    const flushed = on.flush();
    flushed();
    on.answer(write(on, 2, 6));
    on.answer(on.make({ kind: 'zero', from: 0, to: 1, fua: false }));
    return on;
  }

  it.each([
    [[1, 1, 1, 1, 0, 0, 0, 0], [1]],
    [[1, 1, 2, 2, 2, 2, 0, 0], [2]],
    [[0, 1, 2, 2, 2, 2, 0, 0], [3]],
  ])('are a first part: %j', (numbers, fits) => {
    const on = three();
    expect(on.checkPrefix(on.decode(disk(on, numbers)))).toEqual(fits);
  });

  it.each([
    ['lost though flushed', [0, 0, 0, 0, 0, 0, 0, 0], /the first 1 of 3 requests last/],
    ['torn', [1, 1, 2, 2, 0, 0, 0, 0], /first part/],
    ['out of order', [0, 1, 1, 1, 0, 0, 0, 0], /first part/],
  ])('are never %s', (_, numbers, message) => {
    const on = three();
    expect(() => on.checkPrefix(on.decode(disk(on, numbers)))).toThrow(message);
  });
});

describe('writes in flight together', () => {
  /** 1 is answered, then 2 and 3 are made together, and 4 after 2 was answered. */
  function four(): SectorHistory {
    const on = history();
    on.answer(write(on, 0, 4));
    const second = write(on, 2, 6);
    write(on, 3, 8);
    on.answer(second);
    write(on, 0, 1);
    return on;
  }

  it.each([
    [[0, 0, 0, 0, 0, 0, 0, 0]],
    [[1, 1, 1, 1, 0, 0, 0, 0]],
    [[1, 1, 2, 2, 2, 2, 0, 0]],
    [[1, 1, 2, 3, 3, 3, 3, 3]],
    [[1, 1, 2, 2, 2, 2, 3, 3]],
    [[1, 1, 1, 3, 3, 3, 3, 3]],
    [[4, 1, 2, 2, 2, 2, 0, 0]],
  ])('have some order: %j', (numbers) => {
    const on = four();
    expect(() => on.checkOrder(on.decode(disk(on, numbers)))).not.toThrow();
  });

  it.each([
    ['torn', [1, 1, 2, 1, 2, 2, 0, 0], /older/],
    ['mixed', [1, 1, 2, 3, 2, 2, 3, 3], /one order/],
    ['ahead of what was answered before', [4, 0, 0, 0, 0, 0, 0, 0], /older/],
    ['ahead, though nothing shows it', [4, 1, 1, 1, 0, 0, 0, 0], /older/],
    ['misdirected', [1, 1, 1, 1, 0, 0, 0, 4], /misdirected/],
    ['unheard of', [9, 0, 0, 0, 0, 0, 0, 0], /never written/],
  ])('are never %s', (_, numbers, message) => {
    const on = four();
    expect(() => on.checkOrder(on.decode(disk(on, numbers)))).toThrow(message);
  });

  it('are there when they last', () => {
    const on = four();
    on.flush()();
    expect(() => on.checkOrder(on.decode(disk(on, [1, 1, 1, 1, 0, 0, 0, 0])))).toThrow(/it lasts/);
    expect(on.checkOrder(on.decode(disk(on, [1, 1, 2, 2, 2, 2, 0, 0])))).toEqual({
      least: 2,
      most: 2,
    });
  });
});
