/** Lives of a receiver, and single stories of receiving. */
import { describe, expect, test } from 'vitest';
import { BLOCK_BYTES, byteCount, byteOffset } from '../../src/base/units.ts';
import { encodeStreamHeader, decodeStreamHeader } from '../../src/format/send.ts';
import { sendHeader } from '../../src/format/send-layouts.ts';
import { offsetOf } from '../../src/format/record.ts';
import { reseal } from '../../fuzz/format/mutation.ts';
import { streamOf, take, withPair } from '../support/sent.ts';
import { blocksOf, get, holds, put, unreadable } from './bench.ts';
import { runReceiveLives, type ReceiveCounts } from './receive-lives.ts';

test('a receiver is the sender at one moment or the other, whatever happens on the way', async () => {
  const total: ReceiveCounts = {
    received: 0,
    resumed: 0,
    aborted: 0,
    lost: 0,
    spoilt: 0,
    refused: 0,
  };
  for (let seed = 1; seed <= 4; seed++) {
    const counts = await runReceiveLives({ seed, lives: 6 });
    total.received += counts.received;
    total.resumed += counts.resumed;
    total.aborted += counts.aborted;
    total.lost += counts.lost;
    total.spoilt += counts.spoilt;
  }
  // Every way was gone.
  const { received, resumed, lost, spoilt, aborted } = total;
  expect(Math.min(received, resumed, lost, spoilt, aborted)).toBeGreaterThan(0);
}, 180_000);

describe('a stream', () => {
  const code = (name: string): object => expect.objectContaining({ code: name });

  test('of changes fits only what it is since, and nothing that was written since', async () => {
    await withPair(async ({ origin, copy }) => {
      await put(origin, 1, blocksOf(1));
      const whole = await streamOf(origin);
      await put(origin, 2, blocksOf(2));
      const changes = await streamOf(origin, { from: 'gen=1' });
      await put(origin, 3, blocksOf(3));
      const later = await streamOf(origin, { from: 'gen=2' });
      await expect(take(copy, changes)).rejects.toThrow(code('STREAM_MISFIT'));
      await take(copy, whole);
      await expect(take(copy, whole)).rejects.toThrow(code('STREAM_MISFIT'));
      await expect(take(copy, later)).rejects.toThrow(code('STREAM_MISFIT'));
      expect(await take(copy, changes)).toMatchObject({
        generation: 2,
        snapshot: 'received-gen-2',
      });
      await put(copy, 9, blocksOf(9));
      await expect(take(copy, later)).rejects.toThrow('1 requests have changed it since');
      expect(copy.receiver.info().received).toMatchObject({ generation: 2, isUnchanged: false });
    });
  });

  test('that changes nothing makes the receiver the later moment all the same', async () => {
    await withPair(async (pair) => {
      await put(pair.origin, 1, blocksOf(1));
      await take(pair.copy, await streamOf(pair.origin));
      const before = pair.copy.core.head;
      await put(pair.origin, 1, blocksOf(2));
      await put(pair.origin, 1, blocksOf(1));
      await pair.origin.createSnapshot('same', 'gen=1');
      // The moment is sent under another name: from gen=1 to gen=1.
      const report = await take(
        pair.copy,
        await streamOf(pair.origin, { from: 'gen=1', to: 'same' }),
      );
      expect(report).toMatchObject({ generation: 1, here: before, snapshot: 'same' });
      await pair.reopened();
      expect(await holds(pair.copy.live(), 1, [blocksOf(1)])).toBe(0);
      await take(pair.copy, await streamOf(pair.origin, { from: 'gen=1' }));
      expect(pair.copy.receiver.info().received).toMatchObject({ generation: 3 });
    });
  });

  test('is not shown until it is whole, goes on after a restart, and is no moment inside', async () => {
    await withPair(async (pair) => {
      const { origin } = pair;
      for (let block = 0; block < 16; block += 2) await put(origin, block, blocksOf(1));
      const first = await take(pair.copy, await streamOf(origin));
      for (let block = 0; block < 16; block += 2) await put(origin, block, blocksOf(2));
      await origin.live().trim(byteOffset(4096 * 20), byteCount(4096), { fua: false });
      const query = { from: 'gen=8', to: 'gen=17', sealBytes: 1 };
      const stream = await streamOf(origin, query);
      await expect(take(pair.copy, stream.subarray(0, 20_000))).rejects.toThrow(code('STREAM_CUT'));
      await pair.reopened();
      const { copy } = pair;
      expect(await holds(copy.live(), 0, [blocksOf(1), blocksOf(2)])).toBe(0);
      await expect(put(copy, 0, blocksOf(9))).rejects.toThrow(code('RECEIVE_UNFINISHED'));
      const inside = `gen=${copy.core.head}`;
      await expect(copy.resolve(inside)).rejects.toThrow(code('MOMENT_MIXED'));
      expect((await copy.createSnapshot('now')).generation).toBe(first.here);
      await expect(copy.deleteSnapshot(first.snapshot)).rejects.toThrow(code('RECEIVE_UNFINISHED'));
      // Another one does not fit now; its continuation does.
      const other = await streamOf(pair.origin, { from: 'gen=8', to: 'gen=9' });
      await expect(take(copy, other)).rejects.toThrow(code('RECEIVE_UNFINISHED'));
      const token = copy.receiver.info().unfinished?.token;
      const rest = await streamOf(pair.origin, { token });
      expect(rest.length).toBeLessThan(stream.length);
      const { here } = await take(copy, rest);
      expect(await holds(copy.live(), 14, [blocksOf(1), blocksOf(2)])).toBe(1);
      await expect(copy.resolve(inside)).rejects.toThrow(`gen=${here}`);
      expect((await copy.resolve('-0s')).generation).toBe(here);
      await put(copy, 0, blocksOf(9));
    });
  });

  test('is given up, and the disk is what it was', async () => {
    await withPair(async (pair) => {
      const { origin } = pair;
      await put(origin, 2, blocksOf(1));
      await take(pair.copy, await streamOf(origin));
      for (let block = 0; block < 16; block += 2) await put(origin, block, blocksOf(2));
      const stream = await streamOf(origin, { from: 'gen=1', sealBytes: 1 });
      await expect(take(pair.copy, stream.subarray(0, 25_000))).rejects.toThrow(code('STREAM_CUT'));
      await pair.copy.receiver.abort(() => undefined);
      await pair.reopened();
      expect(await get(pair.copy.live(), 0)).toEqual(new Uint8Array(4096));
      expect(await holds(pair.copy.live(), 2, [blocksOf(1)])).toBe(0);
      await expect(pair.copy.receiver.abort(() => undefined)).rejects.toThrow(code('RECEIVE_NONE'));
      await take(pair.copy, stream);
      expect(await holds(pair.copy.live(), 14, [blocksOf(2)])).toBe(0);
    });
  });

  // Its page of checksums had lost its write: what can't be read before can't be put back, and was zeros.
  test('is not given up as zeros where a block can not be read', async () => {
    await withPair(
      async (pair) => {
        const { origin } = pair;
        for (let i = 0; i < 300; i++) await put(origin, i, blocksOf(i + 1));
        await take(pair.copy, await streamOf(origin));
        let from = `gen=${origin.core.head}`;
        for (let i = 300; i < 900; i++) await put(origin, i, blocksOf(i + 1));
        await take(pair.copy, await streamOf(origin, { from }));
        from = `gen=${origin.core.head}`;
        pair.copySums.corrupt(0, new Uint8Array(BLOCK_BYTES));
        await pair.reopened();
        const { copy } = pair;
        expect((await unreadable(copy.live(), 2, 1)).size).toBe(1);
        await put(pair.origin, 2, blocksOf(5000));
        for (let i = 300; i < 320; i++) await put(pair.origin, i, blocksOf(6000 + i));
        const stream = await streamOf(pair.origin, { from });
        await expect(take(copy, stream.subarray(0, -400))).rejects.toThrow(code('STREAM_CUT'));
        await expect(copy.receiver.abort(() => undefined)).rejects.toThrow(code('BLOCK_CORRUPT'));
        expect((await unreadable(copy.live(), 2, 1)).size).toBe(1);
      },
      { blocks: 1000, slots: 16 },
    );
  });

  test('of a sender that lost the moment is not gone on with', async () => {
    await withPair(async ({ origin, copy }) => {
      await put(origin, 0, blocksOf(1));
      const other = await streamOf(origin);
      await take(copy, other);
      const { received } = copy.receiver.info();
      const header = decodeStreamHeader(other.subarray(0, sendHeader.size));
      const { identity } = header;
      // The same generation of another lineage: it was given out again after a crash.
      const from = { lineage: identity.volume, generation: identity.to.generation };
      const forged = encodeStreamHeader({ ...header, identity: { ...identity, from } });
      await expect(take(copy, forged)).rejects.toThrow(code('STREAM_MISFIT'));
      expect(received).toMatchObject({ generation: 1, lineage: identity.to.lineage });
    });
  });

  test('whose label is no text, or whose version is unknown, is refused', async () => {
    await withPair(async ({ origin, copy }) => {
      await put(origin, 0, blocksOf(1));
      const stream = await streamOf(origin);
      // It became longer than its field when it was read as text, which ended the server.
      const label = Uint8Array.from(stream);
      const at = offsetOf(sendHeader, 'label');
      label.fill(0xff, at, at + 64);
      reseal(label.subarray(0, sendHeader.size), sendHeader.size);
      await expect(take(copy, label)).rejects.toThrow(code('STREAM_BAD'));
      const version = Uint8Array.from(stream);
      version[offsetOf(sendHeader, 'version')] = 9;
      reseal(version.subarray(0, sendHeader.size), sendHeader.size);
      await expect(take(copy, version)).rejects.toThrow('got version 9, this build knows 1');
      expect(copy.core.head).toBe(0);
    });
  });
});

describe('a deletion of the snapshot that a receive goes on from', () => {
  const code = (name: string): object => expect.objectContaining({ code: name });

  test('takes nothing from one that begins beside it', async () => {
    // The receive still saw the snapshot, and made none of its own: rounds passed what clients saw,
    // which read as zeros then, and could not be brought back.
    await withPair(
      async ({ origin, copy }) => {
        for (let i = 0; i < 300; i++) await put(origin, i, blocksOf(i + 1));
        await take(copy, await streamOf(origin));
        const from = `gen=${origin.core.head}`;
        await origin.createSnapshot('sent');
        const trimmed = byteCount(260 * BLOCK_BYTES);
        await origin.live().trim(byteOffset(0), trimmed, { fua: false });
        for (let i = 260; i < 900; i++) await put(origin, i, blocksOf(10_000 + i));
        const changes = await streamOf(origin, { from });
        await copy.live().flush();
        const base = copy.core.head;
        const [snapshot] = copy.snapshots();
        const deleting = copy.deleteSnapshot(snapshot?.label ?? '');
        await Promise.resolve();
        const begun = take(copy, changes.subarray(0, -400));
        await expect(begun).rejects.toThrow(code('STREAM_CUT'));
        await deleting;
        expect(copy.core.horizon.generation).toBeGreaterThan(base);
        expect(copy.snapshots()).toMatchObject([{ generation: base }]);
        const isAsBefore = async (): Promise<void> => {
          for (let i = 0; i < 300; i++) {
            expect(await holds(copy.live(), i, [blocksOf(i + 1)])).toBe(0);
          }
        };
        await isAsBefore();
        await copy.receiver.abort(() => undefined);
        await isAsBefore();
      },
      { blocks: 1000, slots: 16 },
    );
  });

  test('is refused until it has ended, and what it goes on from is kept by it, too', async () => {
    await withPair(async (pair) => {
      const { origin } = pair;
      await put(origin, 2, blocksOf(1));
      await take(pair.copy, await streamOf(origin));
      for (let block = 0; block < 16; block += 2) await put(origin, block, blocksOf(2));
      const stream = await streamOf(origin, { from: 'gen=1', sealBytes: 1 });
      await expect(take(pair.copy, stream.subarray(0, 25_000))).rejects.toThrow(code('STREAM_CUT'));
      for (const how of ['as it began', 'opened again']) {
        if (how === 'opened again') await pair.reopened();
        const { copy } = pair;
        const { label = '', generation = copy.core.head } = copy.snapshots()[0] ?? {};
        await expect(copy.deleteSnapshot(label)).rejects.toThrow(code('RECEIVE_UNFINISHED'));
        const reasons = copy.core.pins.at(generation)?.reasons;
        expect(reasons, how).toContainEqual({ kind: 'receive' });
      }
      const { copy } = pair;
      await copy.receiver.abort(() => undefined);
      for (const { label } of copy.snapshots()) await copy.deleteSnapshot(label);
      expect(copy.core.pins.count).toBe(0);
    });
  });
});
