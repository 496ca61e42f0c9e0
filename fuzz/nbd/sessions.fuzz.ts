/**
 * Sessions with bytes changed, cut and stretched, against a whole server with little memory, while
 * a client that behaves goes on working. The server neither falls nor hangs, keeps to its budget,
 * and has nothing left of anybody in the end.
 */
import { assert } from '../../src/base/assert.ts';
import { VarveError } from '../../src/base/errors.ts';
import type { Done } from '../../src/device/block-device.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import { SeededRandom } from '../../test/sim/random.ts';
import { MemoryDevice } from '../../test/support/nbd-memory-device.ts';
import { RawClient, Rig, settled, turn, until } from '../../test/support/nbd-rig.ts';
import { mutatedSession } from '../../test/support/nbd-session.ts';
import type { Fuzzer } from '../options.ts';

const SIZE = 2 ** 20;
const BUDGET = 2 ** 20;

/** A device that is at times slow, at times broken. */
function whim(random: SeededRandom): () => Done {
  return () => {
    const mood = random.below(10);
    if (mood === 0) throw new VarveError('DEVICE_IO', 'a whim');
    if (mood === 1) return Promise.reject(new VarveError('LOG_FULL', 'another whim'));
    return mood < 5 ? turn() : undefined;
  };
}

/** Lets time pass, slowly enough for who moves to be seen moving. */
async function pass(rig: Rig, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 500) {
    rig.timers.advance(500);
    await settled(30);
  }
}

/** One client that means harm, from its first byte to its end. */
async function hostile(rig: Rig, random: SeededRandom): Promise<void> {
  const capacity = random.pick([100, 5000, 65_536]);
  const client = new RawClient(rig.socket({ capacity, piece: () => 1 + random.below(9000) }));
  const bytes = mutatedSession(random, 'disk', SIZE);
  if (random.chance(0.2)) client.socket.pause();
  for (let at = 0; at < bytes.length && !client.isEnded;) {
    const count = 1 + random.below(bytes.length - at);
    // One that never reads may never get rid of what it sends.
    const sent = client.send(bytes.subarray(at, at + count));
    await Promise.race([sent, settled(60).then(() => Promise.reject(new Error('stuck')))]).catch(
      () => (at = bytes.length),
    );
    at += count;
  }
  await settled(random.below(20));
  if (random.chance(0.5)) client.socket.end();
  if (random.chance(0.3)) await pass(rig, random.below(70_000));
  client.socket.destroy();
}

/** Writes and reads back, until the others are gone. */
async function behave(
  client: NbdClient,
  random: SeededRandom,
  { isOver, onStep }: { isOver: () => boolean; onStep: (() => void) | undefined },
): Promise<void> {
  for (let i = 0; i < 3 || !isOver(); i += 1) {
    onStep?.();
    const length = 1 + random.below(20_000);
    const offset = random.below(SIZE - length);
    const source = Buffer.from(random.bytes(length));
    await client.write(offset, source);
    assert((await client.read(offset, length)).equals(source), 'a client reads what it wrote');
  }
}

async function session(random: SeededRandom, onStep: (() => void) | undefined): Promise<void> {
  const rig = new Rig({
    size: SIZE,
    budget: BUDGET,
    pair: { piece: () => 1 + random.below(9000) },
  });
  const whole = new MemoryDevice(SIZE);
  rig.directory.devices.set('good', whole);
  rig.device.before = whim(random.fork('device'));
  const good = await NbdClient.connect(rig.socket(), { exportName: 'good' });
  let isOver = false;
  const crowd = Array.from({ length: random.between(1, 4) }, (_, i) =>
    hostile(rig, random.fork(`hostile-${i}`)),
  );
  const all = Promise.all(crowd).finally(() => (isOver = true));
  await behave(good, random.fork('good'), { isOver: () => isOver, onStep });
  await all;
  good.destroy();
  await until(() => rig.server.connections === 0, 'all connections are gone');
  const { used, usedMax, waiting } = rig.server.budget;
  assert(usedMax <= BUDGET, 'the budget was kept');
  assert(used === 0 && waiting === 0, 'nothing is held in the end');
  assert(rig.device.openCount === 0 && whole.openCount === 0, 'every export was closed');
}

export const fuzzer: Fuzzer = {
  name: 'nbd-sessions',
  async main({ seed, runs, onStep }) {
    const random = new SeededRandom(seed >>> 0);
    for (let run = 0; run < runs; run += 1) await session(random.fork(`run-${run}`), onStep);
  },
};
