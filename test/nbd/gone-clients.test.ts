/**
 * What a client asked for that is gone by now does not land on what its successor wrote.
 *
 * A virtual machine writes 512 bytes, and the rest of their block has to be read for that, which
 * takes long. The machine is killed, and started again: it writes the whole block, flushes, and both
 * are answered. Then the slow read comes back, and the 512 bytes of the process that is gone were
 * merged with what the new one had flushed, and lay over it.
 *
 * Who says farewell is another matter: "The server MUST handle all outstanding requests". A client
 * sent 64 writes and NBD_CMD_DISC, and closed its socket without a look at the answers. The first
 * answer found nobody, the stream broke, and with it went every write that still waited.
 */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, kibibytes } from '../../src/base/units.ts';
import type { ExportDirectory } from '../../src/device/block-device.ts';
import { REVOKE_GRACE_MS } from '../../src/nbd/limits.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { encodeRequest } from '../../src/nbd/request.ts';
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

describe('a client that said farewell, and does not wait for its answers', () => {
  const LAST = 4096;

  /**
   * Its first request is answered when it has left, which is how the server learns that nobody is
   * there; its last one is done when `door` opens.
   */
  async function parting(rig: Rig) {
    const client = await rig.session();
    const [answer, door] = [gate(), gate()];
    rig.device.before = ({ offset }) => (offset === LAST ? door.opened : answer.opened);
    const write = (offset: number): Buffer =>
      encodeRequest({ type: nbd.NBD_CMD_WRITE, cookie: offset, offset, length: 4 });
    const content = Buffer.from('last');
    const farewell = encodeRequest({ type: nbd.NBD_CMD_DISC, cookie: 1 });
    await client.send(write(0), content, write(LAST), content, farewell);
    await until(() => rig.calls('write') === 2);
    const leave = async (): Promise<void> => {
      client.socket.destroy();
      await settled();
      answer.open();
      await settled();
    };
    return { door, leave };
  }

  const found = (rig: Rig): string => rig.device.bytes.toString('latin1', LAST, LAST + 4);

  async function expectNothingHeld(rig: Rig): Promise<void> {
    await until(() => rig.device.openCount === 0, 'the export is closed');
    await until(() => rig.server.connections === 0, 'the connection is gone');
    expect(rig.server.budget).toMatchObject({ used: 0, waiting: 0 });
  }

  test('has what it asked for before', async () => {
    const rig = new Rig();
    const { door, leave } = await parting(rig);
    await leave();
    expect(rig.device.openCount).toBe(1);
    door.open();
    await expectNothingHeld(rig);
    expect(found(rig)).toBe('last');
  });

  test('holds up the closing of the server no longer than others', async () => {
    const rig = new Rig();
    const { door, leave } = await parting(rig);
    await leave();
    let isClosed = false;
    const closed = rig.server.close(1000).then(() => (isClosed = true));
    rig.timers.advance(999);
    await settled();
    expect(isClosed).toBe(false);
    rig.timers.advance(1000);
    await closed;
    door.open();
    await expectNothingHeld(rig);
    expect(found(rig)).toBe('\0\0\0\0');
  });

  test.each(['before', 'after'])('loses an export that is taken %s it went', async (when) => {
    const rig = new Rig();
    const open = rig.directory.open.bind(rig.directory);
    let revoke: (why: string) => void = () => undefined;
    rig.directory.open = async (name) => ({
      ...(await open(name)),
      onRevoke: (end) => {
        revoke = end;
      },
    });
    const { door, leave } = await parting(rig);
    if (when === 'before') revoke('a rollback');
    await leave();
    if (when === 'after') revoke('a rollback');
    rig.timers.advance(REVOKE_GRACE_MS);
    door.open();
    await expectNothingHeld(rig);
    expect(found(rig)).toBe('\0\0\0\0');
  });
});
