/**
 * A client that only asks about the live disk does not have it open.
 *
 * A monitoring tool asked INFO and stayed connected. It counted among those that have the disk open,
 * so that a rollback was refused; one with --force ended the sessions of the others, and waited a
 * minute for this one, which nothing could end: meanwhile nobody could open the disk.
 */
import { expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount } from '../../src/base/units.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, put } from '../crash/bench.ts';
import type { PairOptions, SimSocket } from '../sim/sim-socket.ts';
import { exportsOf, SimNbd } from '../sim/sim-nbd.ts';

const STEP_MS = 50;
/** Less than a client may take for its handshake, or leave a reply unread. */
const SOON_MS = 3000;

function option(number: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(16);
  head.write('IHAVEOPT', 'latin1');
  head.writeUInt32BE(number, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

function text(value: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(value.length);
  return Buffer.concat([length, Buffer.from(value)]);
}

const ABOUT_DISK = Buffer.concat([text('disk'), Buffer.alloc(2)]);
const CONTEXTS = Buffer.concat([text('disk'), Buffer.from([0, 0, 0, 1]), text('base:allocation')]);

interface Machine {
  readonly volume: Volume;
  readonly server: SimNbd;
  readonly wait: (ms: number) => Promise<void>;
  /** A client that says this, and nothing after it; its socket delivers unless it is paused. */
  readonly say: (options: readonly Buffer[], pair?: PairOptions) => SimSocket;
  /** How long a rollback took, in milliseconds. */
  readonly rollBack: (force: boolean) => Promise<number>;
}

async function machine(work: (machine: Machine) => Promise<void>): Promise<void> {
  const bench = await Bench.create(1, { size: byteCount(744 * BLOCK_BYTES) });
  await bench.use(async (volume) => {
    const { timers, clock } = bench.power.life;
    await put(volume, 1, blocksOf(1));
    await put(volume, 1, blocksOf(2), true);
    const server = SimNbd.create({ power: bench.power }, exportsOf(volume));
    const ignore = (): undefined => undefined;
    await work({
      volume,
      server,
      wait: (ms) =>
        new Promise((resolve) => {
          timers.after(ms, resolve);
        }),
      say: (options, pair) => {
        const socket = server.socket(pair);
        socket.start({ data: ignore, target: ignore, end: ignore, close: ignore });
        socket.write([Buffer.concat([Buffer.from([0, 0, 0, 3]), ...options])], ignore);
        return socket;
      },
      rollBack: async (force) => {
        const start = clock.monotonicUs();
        await volume.rollback({ to: 'gen=1', force, dryRun: false }, ignore);
        return (clock.monotonicUs() - start) / 1000;
      },
    });
    await server.server.close(10);
  });
}

test('whoever only asks what the disk is does not have it open', async () => {
  await machine(async ({ volume, server, say, wait, rollBack }) => {
    const socket = say([
      option(nbd.NBD_OPT_STRUCTURED_REPLY, new Uint8Array()),
      option(nbd.NBD_OPT_INFO, ABOUT_DISK),
      option(nbd.NBD_OPT_SET_META_CONTEXT, CONTEXTS),
    ]);
    await wait(STEP_MS);
    expect(server.server.connections).toBe(1);
    expect((await volume.info()).liveSessions).toBe(0);
    expect(await rollBack(false)).toBeLessThan(SOON_MS);
    // What it was told holds, and it may go on.
    socket.write([option(nbd.NBD_OPT_GO, ABOUT_DISK)], () => undefined);
    await wait(STEP_MS);
    expect((await volume.info()).liveSessions).toBe(1);
  });
});

test('whoever leaves the reply to GO unread is ended like the others', async () => {
  await machine(async ({ volume, say, wait, rollBack }) => {
    say([option(nbd.NBD_OPT_GO, ABOUT_DISK)], { capacity: 48 }).pause();
    await wait(STEP_MS);
    expect((await volume.info()).liveSessions).toBe(1);
    await expect(rollBack(false)).rejects.toMatchObject({ code: 'CLIENTS_CONNECTED' });
    expect(await rollBack(true)).toBeLessThan(SOON_MS);
    expect((await volume.info()).liveSessions).toBe(0);
  });
});
