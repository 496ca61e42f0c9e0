/**
 * libnbd sees every part of the protocol that other clients use by chance: structured replies,
 * metadata contexts, FUA, trims, zeros with and without holes, refusals.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd, NbdError, type Connection, type Extents } from '../support/libnbd.ts';
import { varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

const MIB = 1024 ** 2;
const SIZE = 256 * MIB;
const HOLE = 1;
const ZERO = 2;

/** The flags of one context at an offset. */
function flagsAt(answers: readonly Extents[], context: string, offset: number): number | undefined {
  const found = answers.find((one) => one.context === context);
  let at = found?.offset ?? 0;
  for (let i = 0; i < (found?.entries.length ?? 0); i += 2) {
    at += found?.entries[i] ?? 0;
    if (offset < at) return found?.entries[i + 1];
  }
  return undefined;
}

async function errnoOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    if (error instanceof NbdError) return error.errno;
    throw error;
  }
}

describeWith(['python3-nbd'], 'libnbd', () => {
  const directory = temporaryDirectory();
  const data = join(directory.path, 'data');
  const client = new LibNbd();
  let server: Server;
  let disk: Connection;

  beforeAll(async () => {
    server = await Server.start(data, { create: 'disk:256M' });
    disk = await client.open(server.uri(), ['base:allocation']);
  });

  afterAll(async () => {
    await client[Symbol.asyncDispose]();
    await server.stop();
    directory[Symbol.dispose]();
  });

  async function head(): Promise<number> {
    return (await server.info()).head.generation;
  }

  it('is told the truth about the live disk', () => {
    expect(disk.about).toMatchObject({
      size: SIZE,
      canonicalName: 'disk',
      is_read_only: false,
      can_multi_conn: true,
      can_flush: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_fast_zero: true,
      can_df: true,
      can_cache: true,
      get_structured_replies_negotiated: true,
      contexts: ['base:allocation'],
    });
    expect(disk.about.description).toMatch(/lineage [0-9a-f-]{36}/);
  });

  it('reads what it wrote, at any offset and length', async () => {
    for (const [offset, length] of [
      [0, 1],
      [4095, 2],
      [12_345, 67_890],
      [SIZE - 1, 1],
      [SIZE - 5000, 5000],
      [10 * MIB + 1, 32 * MIB],
    ] as const) {
      const bytes = randomBytes(length);
      await disk.write(offset, bytes);
      expect((await disk.read({ offset, length })).equals(bytes)).toBe(true);
    }
  });

  it('makes writes durable by FUA and by flush', async () => {
    await disk.write(MIB, randomBytes(4096), { fua: true });
    const { head: after, durable } = await server.info();
    expect(durable.generation).toBe(after.generation);
    await disk.write(MIB, randomBytes(4096));
    const written = await head();
    await disk.flush();
    expect((await server.info()).durable.generation).toBeGreaterThanOrEqual(written);
  });

  it('trims whole blocks, zeroes the exact range', async () => {
    const offset = 64 * MIB;
    const range = { offset, length: 8 * 4096 };
    await disk.fill(range, Buffer.alloc(8, 1));
    await disk.zero({ offset: offset + 100, length: 4096 }, { fua: true });
    const zeroed = await disk.read(range);
    expect(zeroed.indexOf(0)).toBe(100);
    expect(zeroed.indexOf(1, 100)).toBe(100 + 4096);
    await disk.fill(range, Buffer.alloc(8, 1));
    await disk.trim({ offset: offset + 100, length: 3 * 4096 }, { fua: true });
    const trimmed = await disk.read(range);
    expect(trimmed.indexOf(0)).toBe(4096);
    expect(trimmed.indexOf(1, 4096)).toBe(3 * 4096);
    await disk.zero({ offset, length: 4 * 4096 }, { fast: true });
    expect((await disk.read({ offset, length: 3 * 4096 })).every((byte) => byte === 0)).toBe(true);
  });

  it('sees holes, zeros and data', async () => {
    const offset = 128 * MIB;
    await disk.fill({ offset, length: 3 * MIB }, Buffer.alloc(8, 7));
    await disk.trim({ offset, length: MIB });
    await disk.zero({ offset: offset + MIB, length: MIB }, { noHole: true });
    const answers = await disk.status({ offset, length: 3 * MIB });
    expect(flagsAt(answers, 'base:allocation', offset)).toBe(HOLE | ZERO);
    expect(flagsAt(answers, 'base:allocation', offset + MIB)).toBe(ZERO);
    expect(flagsAt(answers, 'base:allocation', offset + 2 * MIB)).toBe(0);
  });

  it('sees what changed since a snapshot, and since any moment', async () => {
    const offset = 160 * MIB;
    await disk.fill({ offset, length: MIB }, Buffer.alloc(8, 1));
    await varve(data, ['snapshot', 'create', 'disk', 'before']);
    const moment = await head();
    await disk.fill({ offset: offset + 4096, length: 4096 }, Buffer.alloc(8, 2));
    const dirty = 'qemu:dirty-bitmap:before';
    const since = `varve:changed-since:gen=${moment}`;
    const other = await client.open(server.uri(), [dirty, since, 'base:allocation']);
    expect(new Set(other.about.contexts)).toEqual(new Set([dirty, since, 'base:allocation']));
    const answers = await other.status({ offset, length: MIB });
    for (const context of [dirty, since]) {
      expect(flagsAt(answers, context, offset)).toBe(0);
      expect(flagsAt(answers, context, offset + 4096)).toBe(1);
      expect(flagsAt(answers, context, offset + 8192)).toBe(0);
    }
    const snapshot = await client.open(server.uri('disk@before'));
    const [then] = await snapshot.read({ offset: offset + 4096, length: 1 });
    expect(then).toBe(1);
    expect(snapshot.about).toMatchObject({ is_read_only: true, can_multi_conn: true });
    await snapshot.close();
    await other.close();
    await varve(data, ['snapshot', 'delete', 'disk', 'before']);
  });

  it('keeps to the moment that a context named when it was selected', async () => {
    const offset = 170 * MIB;
    await disk.fill({ offset, length: MIB }, Buffer.alloc(8, 1));
    await disk.flush();
    const moving = 'varve:changed-since:flush-1';
    const other = await client.open(server.uri(), [moving]);
    expect(other.about.contexts).toEqual([moving]);
    await disk.fill({ offset: offset + 4096, length: 4096 }, Buffer.alloc(8, 2));
    // The last flush is another one now; a client that asks on is told of the same one as before.
    await disk.flush();
    const answers = await other.status({ offset, length: MIB });
    expect(flagsAt(answers, moving, offset)).toBe(0);
    expect(flagsAt(answers, moving, offset + 4096)).toBe(1);
    await other.close();
  });

  it('opens moments by generation, time, age and flush, under their canonical name', async () => {
    const offset = 200 * MIB;
    const at = async (name: string): Promise<number> => {
      const moment = await client.open(server.uri(name));
      const [byte] = await moment.read({ offset, length: 1 });
      expect(moment.about.canonicalName).toMatch(/^disk@gen=\d+$/);
      expect(moment.about.is_read_only).toBe(true);
      expect(moment.about.can_multi_conn).toBe(name.startsWith('disk@gen='));
      expect(await errnoOf(moment.write(0, Buffer.alloc(1)))).toBe('EPERM');
      await moment.close();
      return byte ?? -1;
    };
    await disk.fill({ offset, length: 4096 }, Buffer.alloc(8, 1));
    await disk.flush();
    const first = await head();
    await new Promise((resolve) => {
      setTimeout(resolve, 1100);
    });
    const time = new Date(Date.now() - 100).toISOString();
    await disk.fill({ offset, length: 4096 }, Buffer.alloc(8, 2));
    await disk.flush();
    await disk.fill({ offset, length: 4096 }, Buffer.alloc(8, 3));
    expect(await at(`disk@gen=${first}`)).toBe(1);
    expect(await at(`disk@${time}`)).toBe(1);
    expect(await at('disk@-1s')).toBe(1);
    expect(await at('disk@flush-2')).toBe(1);
    expect(await at('disk@flush-1')).toBe(2);
    expect(await at('disk@-0s')).toBe(3);
  });

  it('refuses what can not be done, and goes on', async () => {
    const none = Buffer.alloc(0);
    expect(await errnoOf(disk.read({ offset: SIZE - 1, length: 2 }))).toBe('EINVAL');
    expect(await errnoOf(disk.write(SIZE - 1, Buffer.alloc(2)))).toBe('ENOSPC');
    expect(await errnoOf(disk.write(SIZE + 4096, Buffer.alloc(2)))).toBe('ENOSPC');
    expect(await errnoOf(disk.trim({ offset: SIZE, length: 4096 }))).toMatch(/EINVAL|ENOSPC/);
    expect(await errnoOf(disk.zero({ offset: SIZE - 1, length: 4096 }))).toMatch(/EINVAL|ENOSPC/);
    expect(await errnoOf(disk.write(0, none))).toMatch(/none|EINVAL/);
    expect(await errnoOf(disk.cache({ offset: 0, length: MIB }))).toBe('none');
    expect((await disk.read({ offset: 0, length: 1 })).length).toBe(1);
  });

  it('keeps both of two overlapping writes in flight', async () => {
    const offset = 230 * MIB;
    for (let i = 0; i < 100; i++) {
      await Promise.all(
        Array.from({ length: 8 }, (_, part) =>
          disk.write(offset + part * 512, Buffer.alloc(512, (i + part) % 256)),
        ),
      );
      const block = await disk.read({ offset, length: 4096 });
      for (let part = 0; part < 8; part++) expect(block[part * 512]).toBe((i + part) % 256);
    }
  });

  it('lists what there is', async () => {
    const names = (await client.list(server.uri(''))).map(([name]) => name);
    expect(names).toEqual(['disk']);
  });
});
