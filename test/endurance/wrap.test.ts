/**
 * The log wraps again and again under random writes of a real client: the head, and moments all over
 * the window, equal a model; memory stays bounded meanwhile; and what has settled in final storage
 * is, byte for byte, the model at that generation. VARVE_WRAPS says how often.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SeededRandom } from '../sim/random.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { LibNbd } from '../support/libnbd.ts';
import { expectSame, RequestModel, send } from '../support/request-model.ts';
import { varve } from '../support/run.ts';
import { infoOf, RSS_REST_MAX, Server } from '../support/server.ts';

const MIB = 1024 ** 2;
const SIZE = 64 * MIB;
const RING = 64 * MIB;
const WRAPS = Number(process.env['VARVE_WRAPS'] ?? 3);
const MOMENTS = 5 * WRAPS;

describeWith(['python3-nbd'], 'a volume whose log wraps', () => {
  it('equals a model at its head, at any moment of the window, and at home', async () => {
    using directory = temporaryDirectory();
    const sizes = ['--size', '64M', '--log-size', '74M', '--ring-size', '64M'];
    await varve(directory.path, ['create', 'disk', ...sizes]);
    const model = new RequestModel(SIZE);
    const random = new SeededRandom(11);
    await using server = await Server.start(directory.path);
    await using client = new LibNbd();
    const disk = await client.open(server.uri());
    const start = await server.info();
    let info = start;
    const wanted = WRAPS * start.log.sizeBytes;
    while (info.counters.logBytes - start.counters.logBytes < wanted) {
      for (let i = 0; i < 1000; i++) {
        const request = model.any(random);
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
    const settled = new RequestModel(SIZE);
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
