/** The control protocol between both its ends, and between a server and a hostile peer. */
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, generation, micros } from '../../src/base/units.ts';
import type { ControlChannel } from '../../src/control/control-channel.ts';
import {
  encodeLine,
  LineSplitter,
  REQUEST_LINE_BYTES_MAX,
  type Line,
} from '../../src/control/control-lines.ts';
import type { Desk } from '../../src/control/control-protocol.ts';
import { serveControl } from '../../src/control/control-session.ts';
import type { Operator, VolumeSummary } from '../../src/control/operations.ts';
import { nodeControlDoor } from '../../src/control/node-control-door.ts';
import { RemoteOperator } from '../../src/control/remote-operator.ts';
import { NO_RETENTION } from '../../src/volume/retention-policy.ts';
import { SimWorld } from '../sim/sim-world.ts';
import { temporaryDirectory } from '../support/files.ts';

const SUMMARY: VolumeSummary = {
  name: 'disk',
  uuid: '261b3707-d2e2-49e0-918d-bf4417c86e9b',
  size: byteCount(4096),
  logSize: byteCount(4096),
  ringSize: byteCount(4096),
  writeMode: 'back',
  createdAt: '2026-11-21T05:45:11.614000Z',
  log: '/v/disk/log',
  final: '/v/disk/final.raw',
  base: undefined,
  failure: undefined,
};

const unasked = (): Promise<never> => Promise.reject(new VarveError('VOLUME_UNKNOWN', '"disk"'));

/** An operator that has one volume to tell of, and nothing else. */
const OPERATOR: Operator = {
  isServed: true,
  list: () => Promise.resolve([SUMMARY]),
  create: (_name, _options, progress) => {
    progress(1, 2);
    return Promise.resolve(SUMMARY);
  },
  clone: unasked,
  flatten: unasked,
  info: unasked,
  history: unasked,
  snapshots: unasked,
  createSnapshot: unasked,
  deleteSnapshot: () => Promise.resolve(),
  mark: unasked,
  setWriteMode: (_name, writeMode) => Promise.resolve({ ...SUMMARY, writeMode }),
  setRetention: (_name, { hourly = 0 }) => {
    const policy = { ...NO_RETENTION, hourly };
    return Promise.resolve({ policy, deleted: ['auto-1'], freedBytes: byteCount(4096) });
  },
  check: unasked,
  scrub: async (_name, _options, progress) => {
    // Without end, unless somebody ends it.
    for (let done = 0; ; done++) {
      progress(done, done + 1);
      await Promise.resolve();
    }
  },
  rollback: unasked,
  vacate: unasked,
  resolve: (name) => Promise.resolve(`${name}@gen=5`),
  withExport: unasked,
  requests: unasked,
  withHistory: unasked,
  withPast: unasked,
  receive: unasked,
  abortReceive: unasked,
  close: () => Promise.resolve(),
};

const DESK: Desk = {
  operator: OPERATOR,
  receptions: { open: unasked, push: unasked, finish: unasked },
  info: { pid: 7, nbdSocket: '/v/nbd.sock', uris: ['nbd+unix:///disk?socket=/v/nbd.sock'] },
};

/** One end of a pair in memory: what one sends the other reads. */
class PipeEnd implements ControlChannel {
  peer: PipeEnd | undefined;
  readonly #splitter = new LineSplitter(REQUEST_LINE_BYTES_MAX);
  readonly #queue: Line[] = [];
  #wake: () => void = () => undefined;
  #ended = false;

  receive(bytes: Uint8Array): void {
    this.#queue.push(...this.#splitter.push(bytes));
    this.#wake();
  }

  async *lines(): AsyncGenerator<Line> {
    for (;;) {
      for (let line = this.#queue.shift(); line !== undefined; line = this.#queue.shift())
        yield line;
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async send(value: unknown): Promise<void> {
    this.peer?.receive(encodeLine(value));
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  get isOpen(): boolean {
    return !this.#ended;
  }

  close(): void {
    this.end();
    this.peer?.end();
  }
}

function pipe(): readonly [PipeEnd, PipeEnd] {
  const ends = [new PipeEnd(), new PipeEnd()] as const;
  ends[0].peer = ends[1];
  ends[1].peer = ends[0];
  return ends;
}

function connected(): { readonly remote: RemoteOperator; readonly served: Promise<void> } {
  const [client, server] = pipe();
  const served = serveControl(server, { desk: DESK, world: new SimWorld(1) });
  const remote = new RemoteOperator(client, unasked);
  return { remote, served };
}

describe('a control session', () => {
  test('tells of ten thousand snapshots and four thousand volumes', async () => {
    // An answer is one line, and was held to what a server takes of a peer's request: `varve list`
    // of 3,700 volumes failed with PROTOCOL, and so did `info` with 4,400 snapshots.
    using directory = temporaryDirectory();
    const path = join(directory.path, 'control.sock');
    const volumes = Array.from({ length: 4096 }, (_, i) => ({ ...SUMMARY, name: `disk-${i}` }));
    const snapshots = Array.from({ length: 10_000 }, (_, i) => ({
      label: `auto-2026-11-21T05-45-${i}`,
      generation: generation(1_000_000 + i),
      lineage: SUMMARY.uuid,
      momentWallUs: micros(1_790_000_000_000_000 + i),
      createdWallUs: micros(1_790_000_000_000_000 + i),
      isAutomatic: true,
      keptFor: ['hourly' as const],
      exclusiveBytes: byteCount(4096 * i),
      sharedBytes: byteCount(4096 * i),
    }));
    const operator: Operator = {
      ...OPERATOR,
      list: () => Promise.resolve(volumes),
      snapshots: () => Promise.resolve(snapshots),
    };
    const around = { desk: { ...DESK, operator }, world: new SimWorld(1) };
    const listener = await nodeControlDoor.listen(path, (peer) => serveControl(peer, around));
    const channel = await nodeControlDoor.connect(path);
    if (channel === undefined) throw new Error('nobody listens');
    const remote = new RemoteOperator(channel, unasked);
    expect(await remote.list()).toEqual(volumes);
    expect(await remote.snapshots('disk')).toEqual(snapshots);
    // What a peer may ask is bounded as it was.
    const asked = remote.deleteSnapshot('disk', 'x'.repeat(REQUEST_LINE_BYTES_MAX));
    await expect(asked).rejects.toMatchObject({ code: 'USAGE' });
    await remote.close();
    await listener.close();
  });

  test('gives what the operator gives', async () => {
    const { remote, served } = connected();
    expect(await remote.list()).toEqual([SUMMARY]);
    expect(await remote.server()).toEqual(DESK.info);
    expect(await remote.create('disk', { size: byteCount(4096) }, () => undefined)).toEqual(
      SUMMARY,
    );
    expect(await remote.setWriteMode('disk', 'through')).toMatchObject({ writeMode: 'through' });
    expect(await remote.setRetention('disk', { hourly: 5 })).toEqual({
      policy: { ...NO_RETENTION, hourly: 5 },
      deleted: ['auto-1'],
      freedBytes: 4096,
    });
    expect(await remote.resolve('disk')).toBe('disk@gen=5');
    await remote.deleteSnapshot('disk', 'a');
    await remote.close();
    await served;
  });

  test('passes errors on with their code', async () => {
    const { remote } = connected();
    await expect(remote.info('disk')).rejects.toMatchObject({
      code: 'VOLUME_UNKNOWN',
      detail: '"disk"',
    });
    expect(await remote.list()).toHaveLength(1);
  });

  test('answers several requests that were sent at once in their order', async () => {
    const { remote } = connected();
    const [list, failed, mode] = await Promise.allSettled([
      remote.list(),
      remote.mark('disk', 'x'),
      remote.setWriteMode('disk', 'written'),
    ]);
    expect([list.status, failed.status, mode.status]).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
  });

  test('ends what takes long when its client has gone', async () => {
    const { remote, served } = connected();
    const scrub = remote.scrub('disk', { bytesPerSecond: byteCount(0) }, () => undefined);
    const refused = expect(scrub).rejects.toMatchObject({ code: 'SERVER_GONE' });
    await Promise.resolve();
    await remote.close();
    await refused;
    await served;
  });

  test('says so when the server is gone', async () => {
    const { remote } = connected();
    const asked = remote.list();
    await asked;
    await remote.close();
    await expect(remote.list()).rejects.toMatchObject({ code: 'SERVER_GONE' });
  });

  test('answers what is malformed with an error, and goes on', async () => {
    const odd = fc.oneof(
      fc.string().filter((text) => !text.includes('\n')),
      fc.json(),
      fc.record({ id: fc.anything(), call: fc.anything() }).map((value) => JSON.stringify(value)),
      fc
        .constantFrom('create', 'history', 'mode', 'snapshot-create', 'toString', '__proto__')
        .map((call) => JSON.stringify({ id: 1, call, name: {} })),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(odd, { minLength: 1, maxLength: 5 }), async (texts) => {
        const [client, server] = pipe();
        const served = serveControl(server, { desk: DESK, world: new SimWorld(1) });
        for (const text of texts) server.receive(Buffer.from(`${text}\n`));
        server.receive(Buffer.from('{"id":77,"call":"list"}\n'));
        const answers: unknown[] = [];
        for await (const line of client.lines()) {
          const answer: unknown = JSON.parse(line.kind === 'text' ? line.text : '{}');
          answers.push(answer);
          if (answers.length === texts.length + 1) break;
        }
        expect(answers.at(-1)).toEqual({ id: 77, result: [SUMMARY] });
        client.close();
        await served;
      }),
    );
  });
});
