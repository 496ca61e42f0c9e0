/**
 * Who asks for very many contexts holds up nobody.
 *
 * An option of 2.2 KiB asks for 256 contexts, before anybody has said who he is. For each of them all
 * snapshots were listed, with what each one holds and why it is kept, in one step without a turn for
 * others: with 1,000 snapshots the server stood still for a second, as often as one liked.
 */
import { describe, expect, test, vi } from 'vitest';
import { kibibytes } from '../../src/base/units.ts';
import { shakeHands } from '../../src/nbd/handshake.ts';
import { QUERIES_A_TURN, QUERIES_MAX } from '../../src/nbd/limits.ts';
import { encodeContextQuery, encodeOption } from '../../src/nbd/options.ts';
import * as nbd from '../../src/nbd/protocol.ts';
import { Turns } from '../../src/nbd/turns.ts';
import { uint32 } from '../../src/nbd/wire.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { Bench, blocksOf, put } from '../crash/bench.ts';
import { exportsOf } from '../sim/sim-nbd.ts';
import { Rig, turn } from '../support/nbd-rig.ts';

const SNAPSHOTS = 40;
const MANY = Array.from({ length: QUERIES_MAX - 8 }, (_, i) => `varve:changed-since:none-${i}`);

/** Contexts that are told, and how often others had their turn. */
async function told(volume: Volume, option: number, queries: readonly string[]) {
  const input = Buffer.concat([
    Buffer.from([0, 0, 0, nbd.NBD_FLAG_C_FIXED_NEWSTYLE]),
    encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY),
    encodeOption(option, encodeContextQuery({ name: volume.name, queries })),
    encodeOption(nbd.NBD_OPT_ABORT),
  ]);
  let [at, turns] = [0, 0];
  const written: Uint8Array[] = [];
  const stream = {
    read: async (count: number) => input.subarray(at, (at += count)),
    skip: async () => undefined,
    write: async (bytes: Uint8Array) => void written.push(bytes),
  };
  await shakeHands(stream, {
    exports: exportsOf(volume),
    payloadBytesMax: 2 ** 25,
    lists: new Turns(1),
    letOthersRun: async () => void (turns += 1),
    closing: () => false,
    revoke: () => undefined,
  });
  const output = Buffer.concat(written);
  const names: string[] = [];
  for (let from = nbd.NBD_GREETING_BYTES; from < output.length;) {
    const data = from + nbd.NBD_OPTION_REPLY_BYTES;
    const end = data + uint32(output, from + 16);
    if (uint32(output, from + 12) === nbd.NBD_REP_META_CONTEXT) {
      names.push(output.toString('utf8', data + 4, end));
    }
    from = end;
  }
  return { names, turns };
}

/** Looks at everything that snapshots hold, and walks through all of their names. */
async function looks(volume: Volume, work: () => Promise<void>) {
  const { catalogue, undo, final } = volume.core;
  const amounts = [
    vi.spyOn(undo, 'seen'),
    vi.spyOn(undo, 'exclusive'),
    vi.spyOn(undo, 'allocated'),
    vi.spyOn(final, 'allocated'),
    vi.spyOn(catalogue, 'automatic'),
  ];
  const walks = [
    vi.spyOn(catalogue.snapshots, 'values'),
    vi.spyOn(catalogue.snapshots, 'keys'),
    vi.spyOn(catalogue.snapshots, 'entries'),
    vi.spyOn(catalogue.snapshots, 'forEach'),
    vi.spyOn(catalogue.snapshots, Symbol.iterator),
  ];
  await work();
  const sum = (spies: typeof walks | typeof amounts): number =>
    spies.reduce((count, { mock }) => count + mock.calls.length, 0);
  const counts = { amounts: sum(amounts), walks: sum(walks) };
  vi.restoreAllMocks();
  return counts;
}

async function withSnapshots(work: (volume: Volume) => Promise<void>): Promise<void> {
  const bench = await Bench.create(1, { slots: 40, segmentBytes: kibibytes(64) });
  await bench.use(async (volume) => {
    for (let i = 0; i < SNAPSHOTS; i += 1) {
      await put(volume, i, blocksOf(i));
      await volume.createSnapshot(`s${i}`);
    }
    await work(volume);
  });
}

describe('an option that asks for very many contexts', () => {
  test.each([nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_OPT_LIST_META_CONTEXT])(
    'looks names up one by one, through no list of snapshots (option %i)',
    async (option) => {
      await withSnapshots(async (volume) => {
        const known = ['base:allocation', 'qemu:dirty-bitmap:s7', 'varve:changed-since:s8'];
        const asked = [...MANY, ...known, 'qemu:dirty-bitmap:s400', 'varve:spac'];
        const counts = await looks(volume, async () => {
          const { names, turns } = await told(volume, option, asked);
          expect(names).toEqual(known);
          expect(turns).toBe(Math.floor(asked.length / QUERIES_A_TURN));
        });
        expect(counts).toEqual({ amounts: 0, walks: 0 });
      });
    },
  );

  test('lists names once, without what the snapshots hold', async () => {
    await withSnapshots(async (volume) => {
      const all = volume.snapshots().map(({ label }) => `qemu:dirty-bitmap:${label}`);
      const asked = Array.from({ length: QUERIES_MAX }, () => 'qemu:');
      const counts = await looks(volume, async () => {
        const { names } = await told(volume, nbd.NBD_OPT_LIST_META_CONTEXT, asked);
        expect(names).toEqual(all);
      });
      expect(counts).toEqual({ amounts: 0, walks: 1 });
    });
  });

  test('leaves other connections their turn', async () => {
    const rig = new Rig();
    const client = rig.raw();
    await client.greet();
    await client.option(nbd.NBD_OPT_STRUCTURED_REPLY);
    const others = await rig.connect();
    const contexts = rig.device.contexts.bind(rig.device);
    const seen = new Set<number>();
    let now = 0;
    rig.device.contexts = (query) => {
      seen.add(now);
      return contexts(query);
    };
    let isAnswered = false;
    const passing = (async (): Promise<void> => {
      for (; !isAnswered; now += 1) await turn();
    })();
    const data = encodeContextQuery({ name: 'disk', queries: MANY });
    const answer = client.option(nbd.NBD_OPT_SET_META_CONTEXT, data);
    await others.read(0, 4096);
    await answer;
    isAnswered = true;
    await passing;
    expect(seen.size).toBeGreaterThan(MANY.length / QUERIES_A_TURN / 2);
    await others.disconnect();
    client.socket.destroy();
  });
});
