/**
 * The log wraps ten times under random writes of a real client: the head, and fifty moments of the
 * window, equal a model; memory stays bounded meanwhile; and what has settled in final storage is,
 * byte for byte, the model at that generation.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd, type Connection } from '../support/libnbd.ts';
import { varve } from '../support/run.ts';
import { infoOf, RSS_REST_MAX, Server } from '../support/server.ts';

const MIB = 1024 ** 2;
const BLOCK = 4096;
const SIZE = 128 * MIB;
const RING = 64 * MIB;
const WRAPS = 10;
const MOMENTS = 50;

interface Request {
  readonly kind: 'write' | 'zero' | 'trim';
  readonly offset: number;
  readonly length: number;
  readonly value: number;
}

/** The disk after a number of requests, in memory. */
class Model {
  readonly requests: Request[] = [];
  readonly content = Buffer.alloc(SIZE);
  #applied = 0;

  /** Only forwards. */
  advance(count: number): void {
    for (; this.#applied < count; this.#applied++) {
      const request = this.requests[this.#applied];
      if (request === undefined) throw new Error('the model knows that request');
      const { kind, offset, length, value } = request;
      if (kind === 'write') this.content.fill(eightOf(value), offset, offset + length);
      else this.content.fill(0, offset, offset + length);
    }
  }
}

function eightOf(value: number): Buffer {
  const eight = Buffer.alloc(8, 0xa5);
  eight.writeUInt32LE(value);
  return eight;
}

function anyRequest(random: SeededRandom, value: number): Request {
  const kind = random.chance(0.95) ? 'write' : random.pick(['zero', 'trim'] as const);
  const step = kind === 'trim' ? BLOCK : 512;
  const length = random.between(1, (128 * 1024) / step) * step;
  const offset = random.below((SIZE - length) / step + 1) * step;
  return { kind, offset, length, value };
}

async function send(disk: Connection, { kind, offset, length, value }: Request): Promise<void> {
  if (kind === 'write') await disk.fill({ offset, length }, eightOf(value));
  else if (kind === 'zero') await disk.zero({ offset, length });
  else await disk.trim({ offset, length });
}

function expectSame(found: Buffer, wanted: Buffer, what: string): void {
  if (found.equals(wanted)) return;
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  const got = `got ${found.subarray(at, at + 8).toString('hex')}`;
  const expected = `expected ${wanted.subarray(at, at + 8).toString('hex')}`;
  const wrong = new Set<number>();
  for (let byte = at; byte < found.length; byte += 512) {
    if (!found.subarray(byte, byte + 512).equals(wanted.subarray(byte, byte + 512)))
      wrong.add(Math.floor(byte / BLOCK));
  }
  throw new Error(
    `${what}: byte ${at}: ${got}, ${expected}; in ${wrong.size} blocks: ` +
      [...wrong].slice(0, 20).join(', '),
  );
}

describeWith(['python3-nbd'], 'a volume whose log wraps', () => {
  it('equals a model at its head, at any moment of the window, and at home', async () => {
    using directory = temporaryDirectory();
    const sizes = ['--size', '128M', '--log-size', '74M', '--ring-size', '64M'];
    await varve(directory.path, ['create', 'disk', ...sizes]);
    const model = new Model();
    const random = new SeededRandom(11);
    await using server = await Server.start(directory.path);
    await using client = new LibNbd();
    const disk = await client.open(server.uri());
    const start = await server.info();
    let info = start;
    const wanted = WRAPS * start.log.sizeBytes;
    while (info.counters.logBytes - start.counters.logBytes < wanted) {
      for (let i = 0; i < 1000; i++) {
        const request = anyRequest(random, model.requests.length + 1);
        await send(disk, request);
        model.requests.push(request);
        if (random.chance(0.005)) await disk.flush();
      }
      info = await server.info();
    }
    const first = start.head.generation;
    expect(info.head.generation).toBe(first + model.requests.length);

    const rssWhileWrapping = server.rssBytesMax();

    const { horizon, head } = info;
    const moments = Array.from({ length: MOMENTS - 2 }, () =>
      random.between(horizon.generation, head.generation),
    );
    moments.push(horizon.generation, head.generation);
    moments.sort((a, b) => a - b);
    const settled = new Model();
    settled.requests.push(...model.requests);
    for (const generation of moments) {
      model.advance(generation - first);
      const moment = await client.open(server.uri(`disk@gen=${generation}`));
      expectSame(await moment.readAll(), model.content, `generation ${generation}`);
      await moment.close();
    }
    expectSame(await disk.readAll(), model.content, 'the head');
    await disk.close();
    console.info(
      `${model.requests.length} requests, ${info.counters.rounds} rounds, ` +
        `window ${head.generation - horizon.generation}, index ${info.indexBytes}, ` +
        `RSS ${rssWhileWrapping} while it wrapped, ${server.rssBytesMax()} in all`,
    );
    expect(info.counters.rounds).toBeGreaterThan(WRAPS);

    expect(await server.stop()).toBe(0);
    const end = await infoOf(directory.path);
    expect(end.head.generation).toBe(head.generation);
    settled.advance(end.settled.generation - first);
    const home = readFileSync(join(directory.path, 'disk', 'final.raw'));
    expectSame(home, settled.content, `final storage at generation ${end.settled.generation}`);
    const report = JSON.parse(await varve(directory.path, ['check', 'disk', '--json']));
    expect(report).toMatchObject({ ok: true, problems: [] });
    expect(rssWhileWrapping).toBeLessThan(RING + info.indexBytes + RSS_REST_MAX);
  });
});
