import { expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes, mebibytes, slot } from '../../src/base/units.ts';
import { isVarveError } from '../../src/base/errors.ts';
import { slotOffset } from '../../log/geometry.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';

const NO = { fua: false };
async function make(seed: number, o: any = {}) {
  const world = new SimWorld(seed);
  const power = new PowerSupply(world);
  const sim = new SimVolume(power, o);
  await world.run(() => sim.format(power.life));
  return { world, power, sim };
}
const big = { size: mebibytes(2), slots: 40, requestBytesMax: kibibytes(512), ringBytes: mebibytes(4) };
const fill = (n: number, v: number) => new Uint8Array(n * BLOCK_BYTES).fill(v);

/** a torn multi-segment request */
async function torn(n: number, o: any = big) {
  const w = await make(100 + n, o);
  const { power, sim } = w;
  await power.runLife(async (life) => {
    const v = await sim.open(life);
    await v.live().write(byteOffset(0), fill(1, 1), { fua: true });
    power.plan({ loss: 'kill', afterOperations: n });
    await v.live().write(byteOffset(0), fill(128, 9), { fua: true });
    await new Promise(() => {});
  }).catch((e) => { throw e; });
  power.restore();
  return w;
}

test('A: torn request, then an opening that writes nothing, then open', async () => {
  const out: string[] = [];
  for (let n = 1; n < 16; n++) {
    const { world, power, sim } = await torn(n);
    let head = -1;
    await world.run(async () => { const v = await sim.open(power.life); head = v.core.head; await v.close(); });
    const r = await world.run(async () => { try { const v = await sim.open(power.life); const h = v.core.head; await v.close(); return `ok ${h}`; } catch (e: any) { return e.message; } });
    out.push(`n=${n} head=${head} again: ${r}`);
  }
  console.log(out.join('\n'));
});

test('A2: torn request, writes, round recycles the first segment, open', async () => {
  const out: string[] = [];
  for (let n = 1; n < 16; n++) {
    const { world, power, sim } = await torn(n);
    const r = await world.run(async () => { try {
      const v = await sim.open(power.life);
      const h = v.core.head;
      const segs = v.core.log.segments.live.map((s) => `${s.sequence}:${s.lastGeneration}`).join(' ');
      await v.live().write(byteOffset(0), fill(1, 3), { fua: true });
      // write until the tail has moved past the first segments, stop as soon as a round is done
      for (let i = 0; v.core.counters.rounds < 1 && i < 5000; i++) await v.live().write(byteOffset((i % 100) * 4096), fill(1, i % 256), { fua: i % 10 === 0 });
      const tail = v.core.log.superblock.tailSequence;
      await v.close();
      const v2 = await sim.open(power.life); const g = v2.core.head; await v2.close();
      return `first head ${h} [${segs}] tail ${tail}; reopened ${g}`; } catch (e: any) { return e.message; } });
    out.push(`n=${n} ${r}`);
  }
  console.log(out.join('\n'));
});

test('A3: deadlock after a torn request in a small log', async () => {
  const out: string[] = [];
  for (let n = 1; n < 16; n++) {
    const { world, power, sim } = await torn(n, { ...big, slots: 26 });
    const r = await world.run(async () => { try {
      const v = await sim.open(power.life);
      const segs = v.core.log.segments.live.map((s) => `${s.sequence}:${s.lastGeneration}`).join(' ');
      const done = v.live().write(byteOffset(0), fill(128, 3), { fua: true });
      const timeout = new Promise<string>((res) => { power.life.timers.after(100000, () => res('HANGS')); });
      const x = await Promise.race([Promise.resolve(done).then(() => 'wrote'), timeout]);
      let more = '';
      for (let i = 0; i < 3 && x === 'wrote'; i++) { 
        const d = v.live().write(byteOffset(0), fill(128, 3), { fua: true });
        const t = new Promise<string>((res) => { power.life.timers.after(100000, () => res('HANGS')); });
        more += await Promise.race([Promise.resolve(d).then(() => 'wrote'), t]);
      }
      return `${segs} free ${v.core.log.segments.freeSlots} head ${v.core.head}: ${x} ${more}`; } catch (e: any) { return e.message; } });
    out.push(`n=${n} ${r}`);
  }
  console.log(out.join('\n'));
});
