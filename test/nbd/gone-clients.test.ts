/**
 * What a client asked for that is gone by now does not land on what its successor wrote.
 *
 * A virtual machine writes 512 bytes, and the rest of their block has to be read for that, which
 * takes long. The machine is killed, and started again: it writes the whole block, flushes, and both
 * are answered. Then the slow read comes back, and the 512 bytes of the process that is gone were
 * merged with what the new one had flushed, and lay over it.
 */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, kibibytes } from '../../src/base/units.ts';
import type { ExportDirectory } from '../../src/device/block-device.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf } from '../crash/bench.ts';
import { exportsOf, SimNbd, type NbdDevice } from '../sim/sim-nbd.ts';
import { MemoryBase } from '../support/memory-base.ts';
import { gate, Rig, settled, until } from '../support/nbd-rig.ts';

const BLOCKS = 744;
const BLOCK = 5;
const AT = BLOCK * BLOCK_BYTES;
const LAZY = { fua: false };

/** Exports that tell when a session of the live disk was given up. */
function watched(volume: Volume, onAbandon: () => void): ExportDirectory {
  const exports = exportsOf(volume);
  return {
    list: () => exports.list(),
    open: async (name) => {
      const opened = await exports.open(name);
      const { device } = opened;
      const abandon = device.abandon?.bind(device);
      device.abandon = () => {
        abandon?.();
        onAbandon();
      };
      return opened;
    },
  };
}

/** A disk with a block that is slow to read while `door` is shut. */
class SlowBench {
  readonly door = gate();
  readonly bench: Bench;
  /** Reads that wait for the door. */
  held = 0;
  /** The newest generation when a session was given up. */
  headThen: number | undefined;

  private constructor(bench: Bench) {
    this.bench = bench;
  }

  static async use(work: (slow: SlowBench, nbd: SimNbd) => Promise<void>): Promise<void> {
    const base = new MemoryBase(blocksOf(3, BLOCKS));
    const size = byteCount(BLOCKS * BLOCK_BYTES);
    const slow = new SlowBench(await Bench.create(1, { size, base, ringBytes: kibibytes(192) }));
    base.beforeRead = async (offset, length) => {
      if (offset > AT || offset + length <= AT) return;
      slow.held += 1;
      await slow.door.opened;
    };
    await slow.bench.use(async (volume) => {
      const server = SimNbd.create(
        { power: slow.bench.power },
        watched(volume, () => (slow.headThen ??= volume.core.head)),
      );
      await work(slow, server);
      // All that was in hand has come to its end.
      await slow.when(() => server.server.connections === 0);
      await server.server.close(10);
    });
  }

  async when(holds: () => boolean): Promise<void> {
    while (!holds()) await this.bench.world.sleep(1000);
  }
}

type Ask = (device: NbdDevice) => Promise<void>;
type Go = (device: NbdDevice) => void;

const ASKED: readonly (readonly [string, Ask])[] = [
  ['a write of 512 bytes', (one) => one.write(AT + 512, new Uint8Array(512).fill(0xaa), LAZY)],
  ['zeros of 512 bytes', (one) => one.zero(AT + 512, 512, { fua: false, allocate: false })],
];
const GONE: readonly (readonly [string, Go])[] = [
  ['whose stream broke', (one) => one.socket.reset()],
  ['that was killed', (one) => one.socket.destroy()],
  ['that ended its side', (one) => one.socket.end()],
];
const STORIES = ASKED.flatMap(([what, ask]) =>
  GONE.map(([how, go]) => [what, how, ask, go] as const),
);

describe('a client that is gone', () => {
  test.each(STORIES)('%s of one %s does not land later', async (_, _how, ask, go) => {
    await SlowBench.use(async (slow, server) => {
      const one = await server.connect('disk');
      const asked = ask(one).catch((error: unknown) => error);
      await slow.when(() => slow.held > 0);
      go(one);
      await slow.when(() => slow.headThen !== undefined);
      const two = await server.connect('disk');
      const content = new Uint8Array(BLOCK_BYTES).fill(0xbb);
      await two.write(AT, content, { fua: true });
      await two.client.flush();
      slow.door.open();
      // It is told so, if it still listens.
      expect(await asked).toMatchObject({
        message: expect.stringMatching(/SHUTDOWN|server ended/),
      });
      await slow.bench.world.sleep(100_000);
      const found = new Uint8Array(BLOCK_BYTES);
      await two.read(AT, found);
      expect(Buffer.compare(found, content)).toBe(0);
      one.socket.destroy();
      await two.close();
    });
  });

  test('leaves no write behind that waited for room in the log', async () => {
    await SlowBench.use(async (slow, server) => {
      const one = await server.connect('disk', { capacity: 2 ** 22 });
      // More than the ring holds: they wait until some of it is durable.
      const asked = Array.from({ length: 40 }, (_, i) =>
        one.write((100 + i * 16) * BLOCK_BYTES, blocksOf(9 + i, 16), LAZY),
      );
      await asked[0];
      one.socket.reset();
      await Promise.allSettled(asked);
      await slow.when(() => server.server.connections === 0);
      const two = await server.connect('disk');
      const { headThen } = slow;
      expect(headThen).toBeGreaterThan(0);
      expect(headThen).toBeLessThan(asked.length);
      const found = new Uint8Array(BLOCK_BYTES);
      for (let i = 0; i < asked.length; i += 1) {
        await two.read((100 + i * 16) * BLOCK_BYTES, found);
        const isWritten = Buffer.compare(found, blocksOf(9 + i)) === 0;
        expect(isWritten).toBe(i < (headThen ?? 0));
      }
      await two.close();
      slow.door.open();
    });
  });
});

describe('the device hears that its client is gone', () => {
  const write = { type: nbd.NBD_CMD_WRITE, cookie: 1, length: 4 };

  test.each(['end', 'destroy'] as const)('at its %s, while a request is in hand', async (how) => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    await client.request(write, Buffer.from('late'));
    await until(() => rig.calls('write') === 1);
    client.socket[how]();
    await settled();
    door.open();
    await until(() => rig.device.openCount === 0, 'the export is closed');
    expect(rig.device.bytes.every((byte) => byte === 0)).toBe(true);
  });

  test('not after a farewell: what was asked before is done', async () => {
    const rig = new Rig();
    const client = await rig.session();
    const door = gate();
    rig.device.before = () => door.opened;
    await client.request(write, Buffer.from('last'));
    await client.request({ type: nbd.NBD_CMD_DISC, cookie: 2 });
    client.socket.end();
    await settled();
    door.open();
    expect((await client.chunk()).error).toBe(0);
    await client.ended();
    expect(rig.device.bytes.toString('latin1', 0, 4)).toBe('last');
  });
});
