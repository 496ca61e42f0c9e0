/**
 * What people and peers write: moments, labels, sizes, names, volume.json, lines and requests of
 * the control protocol, answers to them. Any text gives a value or a VarveError with a code; what
 * was understood is understood again from how it is written out.
 */
import fc from 'fast-check';
import { deepStrictEqual } from 'node:assert';
import { assert } from '../../src/base/assert.ts';
import { isVarveError, VarveError } from '../../src/base/errors.ts';
import { byteCount, byteOffset, generation } from '../../src/base/units.ts';
import type { ControlChannel } from '../../src/control/control-channel.ts';
import {
  encodeLine,
  LineSplitter,
  REQUEST_LINE_BYTES_MAX,
  type Line,
} from '../../src/control/control-lines.ts';
import type { Desk } from '../../src/control/control-protocol.ts';
import { serveControl } from '../../src/control/control-session.ts';
import { parseExportName } from '../../src/control/export-directory.ts';
import type { Past } from '../../src/control/past.ts';
import { RemoteOperator } from '../../src/control/remote-operator.ts';
import { parseSize, sizeText } from '../../src/control/size-text.ts';
import { tcpUri, unixUri } from '../../src/control/uris.ts';
import {
  checkVolumeName,
  isVolumeName,
  parseRecord,
  recordText,
} from '../../src/control/volume-record.ts';
import { checkLabel, parseMoment, timeText } from '../../src/volume/moment.ts';
import { changedPolicy, NO_RETENTION } from '../../src/volume/retention-policy.ts';
import { PATTERN_BYTES_MAX } from '../../src/volume/past-report.ts';
import { planGeometry } from '../../log/geometry.ts';
import { SimWorld } from '../../test/sim/sim-world.ts';
import type { Counts, Fuzzer } from '../options.ts';

/** The value, or undefined for a refusal with a code; anything else is a bug. */
function understood<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return undefined;
  }
}

const digits = fc.oneof(
  fc.constantFrom('0', '1', '00', '9007199254740991', '9007199254740992', '1.5', '.5', '1e9', ''),
  fc.nat().map(String),
  fc.string({ unit: fc.constantFrom(...Array.from('0123456789.')), maxLength: 400 }),
);
const two = fc.nat({ max: 99 }).map((n) => String(n).padStart(2, '0'));
const time = fc
  .tuple(
    fc.nat({ max: 9999 }),
    two,
    two,
    two,
    two,
    two,
    digits,
    fc.constantFrom('Z', 'z', '', '+02:00', '-23:59', '+99:99'),
  )
  .map(([year, month, day, hour, minute, second, fraction, zone]) => {
    const date = `${String(year).padStart(4, '0')}-${month}-${day}`;
    return `${date}T${hour}:${minute}:${second}${fraction === '' ? '' : `.${fraction}`}${zone}`;
  });
const word = fc.oneof(
  fc.string({ maxLength: 80 }),
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('', '__proto__', 'constructor', 'lock', '..', 'disk', 'disk@', '@', 'gen=', '-'),
);
const moment = fc.oneof(
  word,
  time,
  digits.map((n) => `gen=${n}`),
  digits.map((n) => `flush-${n}`),
  fc
    .tuple(digits, fc.constantFrom('us', 'ms', 's', 'm', 'h', 'd', 'w', 'y', ''))
    .map(([n, unit]) => `-${n}${unit}`),
);
const size = fc.oneof(
  word,
  fc
    .tuple(digits, fc.constantFrom('', 'K', 'm', 'GiB', 'TB', 'P', 'Q', ' K'))
    .map((parts) => parts.join('')),
);

function checkMoment(text: string): void {
  const parsed = understood(() => parseMoment(text));
  if (parsed?.kind === 'time') {
    const { wallUs } = parsed;
    assert(Number.isSafeInteger(wallUs) && wallUs >= 0, 'a time is a safe integer');
    deepStrictEqual(parseMoment(timeText(wallUs)), parsed);
  }
  const label = understood(() => checkLabel(text));
  if (label !== undefined) assert(parseMoment(label).kind === 'label', 'a label reads as one');
}

function checkSize(text: string): void {
  const bytes = understood(() => parseSize(text));
  if (bytes === undefined) return;
  assert(Number.isSafeInteger(bytes) && bytes > 0, 'a size is a safe integer above 0');
  assert(parseSize(String(bytes)) === bytes, 'a size in bytes is that size');
  sizeText(bytes);
}

function checkNames(name: string, port: number): void {
  const { volume, moment: at } = parseExportName(name);
  assert((at === undefined ? volume : `${volume}@${at}`) === name, 'an export name has its parts');
  assert(
    (understood(() => checkVolumeName(name)) !== undefined) === isVolumeName(name),
    'one rule',
  );
  // A text that is no Unicode has no URI.
  if (/\p{Surrogate}/u.test(name)) return;
  const unix = new URL(unixUri(name, `/run/${name}/socket`));
  assert(unix.searchParams.get('socket') === `/run/${name}/socket`, 'a URI leads to its socket');
  const tcp = new URL(tcpUri(name, { host: '::1', port }));
  // A path of nothing but dots means something else to who reads URLs.
  const isPlain = !/^\.{1,2}$/.test(name);
  if (isPlain) assert(decodeURIComponent(tcp.pathname.slice(1)) === name, 'a URI names its export');
}

const json = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom(0, -1, 1.5, 2 ** 53, null, true, '', 'disk', '1', [], {}),
);

/** An object of the shape that is wanted, but for some members. */
function near(good: Readonly<Record<string, unknown>>): fc.Arbitrary<unknown> {
  const changes = fc.dictionary(fc.constantFrom(...Object.keys(good)), json, { maxKeys: 3 });
  return changes.map((changed) => ({ ...good, ...changed }));
}

const RECORD = {
  format: 2,
  uuid: '261b3707-d2e2-49e0-918d-bf4417c86e9b',
  size: 2 ** 30,
  logSize: 2 ** 30,
  ringSize: 2 ** 26,
  writeMode: 'back',
  createdAt: '2026-11-21T05:45:11.614000Z',
  log: 'log',
  final: '/dev/sdb',
  sums: 'final.sums',
};

function checkRecord(source: string): void {
  const record = understood(() => parseRecord(source, 'volume.json'));
  if (record !== undefined) deepStrictEqual(parseRecord(recordText(record), ''), record);
}

const POINT = { generation: 1, wallUs: 2 };
const SEEN_BY = { live: true, from: 1, to: 2, snapshots: ['a'], snapshotsMore: 0 };
const ANSWERS = fc.oneof(
  near({ id: 1, result: { size: 1, horizon: POINT, head: POINT } }),
  near({ id: 1, result: { ranges: [{ offset: 0, length: 1, became: 'data' }], next: 4096 } }),
  near({ id: 1, result: { offset: 0, versions: [{ kind: 'trim', seenBy: SEEN_BY }] } }),
  near({
    id: 1,
    result: {
      spells: [{ offset: 0, since: POINT, last: 1 }],
      versions: 1,
      throughout: 0,
      unreadable: 0,
      left: 0,
    },
  }),
  near({ id: 1, result: { pid: 7, nbdSocket: '/v/nbd.sock', uris: ['nbd://x'] } }),
  near({ id: 1, error: { code: 'VOLUME_UNKNOWN', detail: 'disk' } }),
  near({ id: 1, progress: { done: 1, total: 2 } }),
  near({ id: 1, result: [RECORD] }),
  json,
);
const WANTED = {
  id: 1,
  name: 'disk',
  label: 'a',
  size: 4096,
  intervals: 9,
  mode: 'back',
  bytesPerSecond: 0,
  moment: 'gen=1',
  from: 1,
  to: 2,
  offset: 0,
  end: 4096,
  next: 0,
  at: 2,
  pattern: '6162',
  throughout: true,
  rangesMax: 3,
  versionsMax: 3,
  spellsMax: 3,
};
const CALLS = [
  'scrub',
  'rollback',
  'server',
  'list',
  'create',
  'info',
  'history',
  'snapshots',
  'snapshot-create',
  'window',
  'point',
  'changed',
  'versions',
  'search',
];
const REQUESTS = fc.oneof(
  fc
    .constantFrom(...CALLS, 'snapshot-delete', 'mark', 'mode', 'resolve', 'check', 'toString', '')
    .chain((call) => near({ ...WANTED, call })),
  json,
);

/** Lines as bytes, some of which are no lines at all. */
function lines(values: fc.Arbitrary<unknown>): fc.Arbitrary<Uint8Array> {
  const line = fc.oneof(
    { weight: 6, arbitrary: values.map((value) => encodeLine(value)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }) },
    { weight: 1, arbitrary: fc.string({ maxLength: 40 }).map((text) => Buffer.from(`${text}\n`)) },
    { weight: 1, arbitrary: fc.constant(Buffer.from(`${'['.repeat(50_000)}\n`)) },
  );
  return fc.array(line, { maxLength: 6 }).map((parts) => Buffer.concat(parts));
}

/** A peer that says those bytes, whatever it is told; what it hears is counted. */
class Peer implements ControlChannel {
  readonly #bytes: Uint8Array;
  readonly #piece: number;
  heard = 0;
  readonly isOpen = true;

  constructor(bytes: Uint8Array, piece: number) {
    this.#bytes = bytes;
    this.#piece = piece;
  }

  async *lines(): AsyncGenerator<Line> {
    const splitter = new LineSplitter(REQUEST_LINE_BYTES_MAX);
    for (let at = 0; at < this.#bytes.length; at += this.#piece) {
      yield* splitter.push(this.#bytes.subarray(at, at + this.#piece));
    }
  }

  send(value: unknown): Promise<void> {
    encodeLine(value);
    this.heard += 1;
    return Promise.resolve();
  }

  close(): void {
    // Nothing is held.
  }
}

const refuse = (): Promise<never> => Promise.reject(new VarveError('VOLUME_UNKNOWN', '"disk"'));
/** Understands its questions, and has no answer. */
const PAST: Past = {
  window: refuse,
  point: (text) => {
    parseMoment(text ?? 'gen=0');
    return refuse();
  },
  sent: (text) => {
    parseMoment(text ?? 'gen=0');
    return refuse();
  },
  changed: refuse,
  versions: refuse,
  search: ({ pattern }) => {
    assert(pattern.length >= 1 && pattern.length <= PATTERN_BYTES_MAX, 'a pattern is bounded');
    return refuse();
  },
  open: refuse,
};
const DESK: Desk = {
  operator: {
    isServed: true,
    list: () => Promise.resolve([]),
    create: (_, { size: bytes }) => {
      // As the one that has volumes does, before it makes any.
      if (bytes !== undefined) planGeometry({ size: bytes, logSize: bytes });
      return refuse();
    },
    clone: (_, { of }) => {
      parseExportName(of);
      return refuse();
    },
    flatten: refuse,
    info: refuse,
    history: refuse,
    snapshots: refuse,
    createSnapshot: (_, label, at) => {
      checkLabel(label);
      parseMoment(at ?? 'gen=0');
      return refuse();
    },
    deleteSnapshot: () => Promise.resolve(),
    mark: refuse,
    setWriteMode: refuse,
    setRetention: (_, change) => {
      changedPolicy(NO_RETENTION, change);
      return refuse();
    },
    scrub: refuse,
    vacate: refuse,
    rollback: (_, { to }) => {
      parseMoment(to);
      return refuse();
    },
    check: (_, progress) => {
      progress(1, 2);
      return refuse();
    },
    resolve: (name) => Promise.resolve(name),
    withExport: refuse,
    requests: refuse,
    withHistory: refuse,
    withPast: (_, work) => work(PAST),
    receive: refuse,
    abortReceive: (_, progress) => {
      progress(1, 2);
      return refuse();
    },
    close: () => Promise.resolve(),
  },
  receptions: { open: () => Promise.resolve(1), push: () => Promise.resolve(), finish: refuse },
  info: { pid: 7, nbdSocket: '/v/nbd.sock', uris: [] },
};

async function checkServer(bytes: Uint8Array, piece: number): Promise<void> {
  const peer = new Peer(bytes, piece);
  const world = new SimWorld(1);
  await serveControl(peer, { desk: DESK, world });
  const asked = bytes.filter((byte) => byte === 0x0a).length;
  assert(peer.heard >= asked, 'every line is answered');
}

const ASKED = { from: generation(1), to: generation(2), offset: byteOffset(0) };
const SOUGHT = {
  ...ASKED,
  pattern: Buffer.from('ab'),
  end: byteOffset(4096),
  next: byteOffset(0),
  throughout: false,
  spellsMax: 2,
};

async function checkClient(bytes: Uint8Array, piece: number): Promise<void> {
  const operator = new RemoteOperator(new Peer(bytes, piece), refuse);
  const asks: readonly (() => Promise<unknown>)[] = [
    () => operator.server(),
    () => operator.list(),
    () => operator.info('disk'),
    () => operator.check('disk', () => undefined),
    () => operator.history('disk', { intervals: 3 }),
    () => operator.snapshots('disk'),
    () => operator.scrub('disk', { bytesPerSecond: byteCount(0) }, () => undefined),
    () => operator.rollback('disk', { to: 'gen=1', force: false, dryRun: true }, () => undefined),
    () => operator.withPast('disk', (past) => past.window()),
    () => operator.withPast('disk', (past) => past.point('gen=1')),
    () => operator.withPast('disk', (past) => past.changed({ ...ASKED, rangesMax: 2 })),
    () => operator.withPast('disk', (past) => past.versions({ ...ASKED, versionsMax: 2 })),
    () => operator.withPast('disk', (past) => past.search(SOUGHT, () => undefined)),
  ];
  for (const ask of asks) {
    try {
      await ask();
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }
}

/** However bytes are cut, the lines are the same; and none that is too long is kept. */
function checkLines(bytes: Uint8Array, piece: number): void {
  const whole = new LineSplitter(REQUEST_LINE_BYTES_MAX).push(bytes);
  const splitter = new LineSplitter(REQUEST_LINE_BYTES_MAX);
  const cut: Line[] = [];
  for (let at = 0; at < bytes.length; at += piece) {
    cut.push(...splitter.push(bytes.subarray(at, at + piece)));
  }
  deepStrictEqual(cut, whole);
}

function checkGeometry(bytes: number, logSize: number, request: number): void {
  const geometry = understood(() =>
    planGeometry({
      size: byteCount(bytes),
      logSize: byteCount(logSize),
      requestBytesMax: byteCount(request),
    }),
  );
  if (geometry !== undefined) assert(geometry.logBytes <= logSize, 'a log fits its device');
}

async function main({ seed, runs }: { seed: number; runs: number }): Promise<Counts> {
  const each = { seed, numRuns: runs };
  fc.assert(fc.property(moment, checkMoment), each);
  fc.assert(fc.property(size, checkSize), each);
  fc.assert(fc.property(word, fc.nat({ max: 65_535 }), checkNames), each);
  const records = fc.oneof(
    near(RECORD).map((value) => JSON.stringify(value)),
    word,
  );
  fc.assert(fc.property(records, checkRecord), each);
  const amount = fc.oneof(fc.integer(), fc.maxSafeInteger(), fc.constantFrom(0, 4096, 2 ** 22));
  const request = fc.constantFrom(4096, 2 ** 20, 2 ** 25);
  fc.assert(fc.property(amount, amount, request, checkGeometry), each);
  const piece = fc.oneof(fc.integer({ min: 1, max: 100 }), fc.constant(65_536));
  fc.assert(fc.property(lines(json), piece, checkLines), each);
  await fc.assert(fc.asyncProperty(lines(REQUESTS), piece, checkServer), each);
  await fc.assert(fc.asyncProperty(lines(ANSWERS), piece, checkClient), each);
  const long = new LineSplitter(REQUEST_LINE_BYTES_MAX).push(
    Buffer.alloc(REQUEST_LINE_BYTES_MAX + 1, 0x20),
  );
  assert(long.length === 1 && long[0]?.kind === 'bad', 'a line without end is refused');
  return { texts: 8 * runs };
}

export const fuzzer: Fuzzer = { name: 'control-texts', runs: 300, main };
