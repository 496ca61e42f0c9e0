/**
 * The control protocol: what may be asked of a running server, and the answers. One JSON value a
 * line, both ways:
 *
 *   {"id":1,"call":"info","name":"disk"}
 *   {"id":1,"progress":{"done":3,"total":10}}         any number of them
 *   {"id":1,"result":...}  or  {"id":1,"error":{"code":"VOLUME_UNKNOWN","detail":"...","next":"..."}}
 *
 * A request that is not understood is answered with an error, and the connection goes on.
 */
import { ERRORS, VarveError, type ErrorCode } from '../base/errors.ts';
import { byteCount, generation, micros, type ByteCount } from '../base/units.ts';
import { IMAGE_FORMATS } from '../image/base-image.ts';
import { WRITE_MODES, type Progress } from '../volume/report.ts';
import type { Operator } from './operations.ts';
import type { Past } from './past.ts';
import type { Receptions } from './receptions.ts';
import { changedQueryShape, searchQueryShape, versionsQueryShape } from './past-shapes.ts';
import { fields, flag, list, oneOf, optional, parseJson, text, unit, type Shape } from './shape.ts';

const NAME = { name: text };
const bytes: Shape<ByteCount> = unit(byteCount);

const requestShapes = {
  create: fields({
    ...NAME,
    size: optional(bytes),
    basePath: optional(text),
    baseFormat: optional(oneOf(IMAGE_FORMATS)),
    logSize: optional(bytes),
    ringSize: optional(bytes),
    logPath: optional(text),
    finalPath: optional(text),
  }),
  clone: fields({ ...NAME, of: text, logSize: optional(bytes) }),
  named: fields(NAME),
  history: fields({
    ...NAME,
    intervals: unit(Number),
    fromWallUs: optional(unit(micros)),
    toWallUs: optional(unit(micros)),
  }),
  snapshot: fields({ ...NAME, label: text, moment: optional(text) }),
  scrub: fields({ ...NAME, bytesPerSecond: bytes }),
  rollback: fields({ ...NAME, to: text, force: flag, dryRun: flag }),
  vacate: fields({ ...NAME, force: flag }),
  mode: fields({ ...NAME, mode: oneOf(WRITE_MODES) }),
  retention: fields({
    ...NAME,
    everyWriteUs: optional(unit(micros)),
    hourly: optional(unit(Number)),
    daily: optional(unit(Number)),
    weekly: optional(unit(Number)),
    maxBytes: optional(bytes),
  }),
  requests: fields({ ...NAME, after: unit(generation), to: unit(generation) }),
  point: fields({ ...NAME, moment: optional(text) }),
  reception: fields({ ...NAME, session: unit(Number) }),
  received: fields({ ...NAME, session: unit(Number), bytes: text }),
};

/** More than any terminal shows. */
export const INTERVALS_MAX = 1000;

/** What a server tells of itself. */
export interface ServerInfo {
  readonly pid: number;
  /** Absolute. */
  readonly nbdSocket: string;
  readonly uris: readonly string[];
}

export interface Desk {
  readonly operator: Operator;
  readonly receptions: Pick<Receptions, 'open' | 'push' | 'finish'>;
  readonly info: ServerInfo;
}

type Call = (desk: Desk, request: unknown, progress: Progress) => Promise<unknown>;

function ofPast<T>(
  { operator }: Desk,
  request: unknown,
  work: (past: Past) => Promise<T>,
): Promise<T> {
  return operator.withPast(requestShapes.named(request, '').name, work);
}

/** Every call of the protocol. */
const CALLS: Readonly<Record<string, Call>> = {
  server: async ({ info }) => info,
  list: ({ operator }) => operator.list(),
  create: ({ operator }, request, progress) => {
    const { name, ...options } = requestShapes.create(request, '');
    return operator.create(name, options, progress);
  },
  clone: ({ operator }, request, progress) => {
    const { name, ...asked } = requestShapes.clone(request, '');
    return operator.clone(name, asked, progress);
  },
  flatten: ({ operator }, request, progress) =>
    operator.flatten(requestShapes.named(request, '').name, progress),
  info: ({ operator }, request) => operator.info(requestShapes.named(request, '').name),
  history: ({ operator }, request) => {
    const { name, ...range } = requestShapes.history(request, '');
    if (range.intervals < 1 || range.intervals > INTERVALS_MAX) {
      throw new VarveError('USAGE', `intervals: got ${range.intervals}, 1 to ${INTERVALS_MAX}`);
    }
    return operator.history(name, range);
  },
  snapshots: ({ operator }, request) => operator.snapshots(requestShapes.named(request, '').name),
  'snapshot-create': ({ operator }, request) => {
    const { name, label, moment } = requestShapes.snapshot(request, '');
    return operator.createSnapshot(name, label, moment);
  },
  'snapshot-delete': ({ operator }, request) => {
    const { name, label } = requestShapes.snapshot(request, '');
    return operator.deleteSnapshot(name, label);
  },
  mark: ({ operator }, request) => {
    const { name, label } = requestShapes.snapshot(request, '');
    return operator.mark(name, label);
  },
  mode: ({ operator }, request) => {
    const { name, mode } = requestShapes.mode(request, '');
    return operator.setWriteMode(name, mode);
  },
  retention: ({ operator }, request) => {
    const { name, ...change } = requestShapes.retention(request, '');
    return operator.setRetention(name, change);
  },
  resolve: ({ operator }, request) => operator.resolve(requestShapes.named(request, '').name),
  requests: ({ operator }, request) => {
    const { name, ...asked } = requestShapes.requests(request, '');
    return operator.requests(name, asked);
  },
  scrub: ({ operator }, request, progress) => {
    const { name, ...options } = requestShapes.scrub(request, '');
    return operator.scrub(name, options, progress);
  },
  rollback: ({ operator }, request, progress) => {
    const { name, ...asked } = requestShapes.rollback(request, '');
    return operator.rollback(name, asked, progress);
  },
  vacate: ({ operator }, request) => {
    const { name, force } = requestShapes.vacate(request, '');
    return operator.vacate(name, force);
  },
  window: (desk, request) => ofPast(desk, request, (past) => past.window()),
  point: ({ operator }, request) => {
    const { name, moment } = requestShapes.point(request, '');
    return operator.withPast(name, (past) => past.point(moment));
  },
  sent: ({ operator }, request) => {
    const { name, moment } = requestShapes.point(request, '');
    return operator.withPast(name, (past) => past.sent(moment));
  },
  changed: (desk, request) => {
    const query = changedQueryShape(request, '');
    return ofPast(desk, request, (past) => past.changed(query));
  },
  versions: (desk, request) => {
    const query = versionsQueryShape(request, '');
    return ofPast(desk, request, (past) => past.versions(query));
  },
  search: (desk, request, progress) => {
    const query = searchQueryShape(request, '');
    return ofPast(desk, request, (past) => past.search(query, progress));
  },
  'receive-open': ({ receptions }, request) =>
    receptions.open(requestShapes.named(request, '').name),
  'receive-push': async ({ receptions }, request) => {
    const { name, session, bytes: text64 } = requestShapes.received(request, '');
    await receptions.push(name, session, Buffer.from(text64, 'base64'));
  },
  'receive-finish': ({ receptions }, request) => {
    const { name, session } = requestShapes.reception(request, '');
    return receptions.finish(name, session);
  },
  'receive-abort': ({ operator }, request, progress) =>
    operator.abortReceive(requestShapes.named(request, '').name, progress),
  check: ({ operator }, request, progress) =>
    operator.check(requestShapes.named(request, '').name, progress),
};

const headShape = fields({ id: unit(Number), call: text });

export interface Request {
  readonly id: number;
  readonly run: (desk: Desk, progress: Progress) => Promise<unknown>;
}

/** @throws ShapeError; VarveError USAGE for a call that does not exist */
export function decodeRequest(line: string): Request {
  const value = parseJson(line, 'the request');
  const { id, call } = headShape(value, '');
  const found = Object.hasOwn(CALLS, call) ? CALLS[call] : undefined;
  if (found === undefined) throw new VarveError('USAGE', `no call "${call.slice(0, 40)}"`);
  return { id, run: (desk, progress) => found(desk, value, progress) };
}

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code);
}

const errorShape = fields({ code: text, detail: text, next: optional(text) });
const answerShape = fields({
  id: unit(Number),
  progress: optional(fields({ done: unit(Number), total: unit(Number) })),
  error: optional(errorShape),
  result: (value) => value,
});

export type Answer =
  | {
      readonly kind: 'progress';
      readonly id: number;
      readonly done: number;
      readonly total: number;
    }
  | { readonly kind: 'error'; readonly id: number; readonly error: VarveError }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown };

/** @throws ShapeError */
export function decodeAnswer(line: string): Answer {
  const { id, progress, error, result } = answerShape(parseJson(line, 'the answer'), '');
  if (progress !== undefined) return { kind: 'progress', id, ...progress };
  if (error === undefined) return { kind: 'result', id, value: result };
  const { code, detail, next } = error;
  if (!isErrorCode(code)) return { kind: 'error', id, error: new VarveError('PROTOCOL', detail) };
  return { kind: 'error', id, error: new VarveError(code, detail, { next }) };
}

export const serverInfoShape: Shape<ServerInfo> = fields({
  pid: unit(Number),
  nbdSocket: text,
  uris: list(text),
});
