/** A client that behaves well among others that do not: writes, reads back and compares. */
import { assert } from '../../src/base/assert.ts';
import { LibNbd } from './libnbd.ts';

const CALM_BYTES = 64 * 1024;
const FILL_BYTES = 4 * 1024 ** 2;
/** Who behaves well is never held up for longer, whatever others do. */
export const CALM_WAIT_MS_MAX = 2000;

export interface Calm {
  turns: number;
  slowestMs: number;
}

/** @param uri - of a disk of `size` bytes that nobody else knows */
export async function workCalmly(uri: string, size: number, isOver: () => boolean): Promise<Calm> {
  await using client = new LibNbd();
  const disk = await client.open(uri);
  const calm: Calm = { turns: 0, slowestMs: 0 };
  while (!isOver()) {
    const offset = (calm.turns * CALM_BYTES) % size;
    const value = Buffer.alloc(8);
    value.writeUInt32LE(++calm.turns);
    const began = performance.now();
    await disk.fill({ offset, length: CALM_BYTES }, value);
    const found = await disk.read({ offset, length: CALM_BYTES });
    if (calm.turns % 100 === 0) await disk.flush();
    calm.slowestMs = Math.max(calm.slowestMs, performance.now() - began);
    assert(found.equals(Buffer.alloc(CALM_BYTES, value)), 'a client reads what it wrote');
  }
  await disk.close();
  return calm;
}

/** Data everywhere: zeros would be told as holes, and cost nobody anything. */
export async function fillDisk(uri: string): Promise<void> {
  await using client = new LibNbd();
  const disk = await client.open(uri);
  for (let offset = 0; offset < disk.about.size; offset += FILL_BYTES) {
    const length = Math.min(FILL_BYTES, disk.about.size - offset);
    await disk.fill({ offset, length }, Buffer.from('sediment'));
  }
  await disk.close();
}
