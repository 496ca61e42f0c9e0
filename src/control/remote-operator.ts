/** The operator that asks a running server, over its control socket; data goes over NBD. */
import { VarveError } from '../base/errors.ts';
import { Mutex } from '../base/mutex.ts';
import type { Generation } from '../base/units.ts';
import type { BlockDevice, OpenExport } from '../device/block-device.ts';
import type { RequestPage } from '../device/request-record.ts';
import type {
  CheckReport,
  HistoryInterval,
  MarkInfo,
  Progress,
  RetentionReport,
  RollbackReport,
  ReceiveReport,
  ScrubReport,
  SnapshotInfo,
  Vacated,
  VolumeInfo,
  WriteMode,
} from '../volume/report.ts';
import type { RetentionChange } from '../volume/retention-policy.ts';
import type { ControlChannel } from './control-channel.ts';
import type { Line } from './control-lines.ts';
import { decodeAnswer, serverInfoShape, type ServerInfo } from './control-protocol.ts';
import { generationIn, needNoRollback, needOrder } from './pinned-history.ts';
import type {
  CloneAsked,
  FlattenReport,
  HistoryEnds,
  HistoryRange,
  Operator,
  PinnedHistory,
  RequestsAsked,
  RollbackAsked,
  ScrubRequest,
  VolumeSummary,
} from './operations.ts';
import type { Past } from './past.ts';
import { RemotePast, type Ask } from './remote-past.ts';
import {
  checkShape,
  flattenShape,
  historyShape,
  infoShape,
  markShape,
  receiveReportShape,
  requestsShape,
  rollbackShape,
  scrubShape,
  snapshotShape,
  summaryShape,
  vacatedShape,
} from './report-shapes.ts';
import { retentionReportShape } from './retention-shapes.ts';
import { list, ShapeError, text, unit, type Shape } from './shape.ts';
import type { Access, CreateOptions } from './volume-directory.ts';

/** Opens an export of an NBD server on a Unix socket. */
export type ConnectExport = (socketPath: string, name: string) => Promise<OpenExport>;

const nothing: Shape<void> = () => undefined;
/** Of a stream, in one line of the protocol. */
const PIECE_BYTES = 512 * 1024;

export class RemoteOperator implements Operator {
  readonly isServed = true;
  readonly #channel: ControlChannel;
  readonly #lines: AsyncIterator<Line>;
  readonly #connectExport: ConnectExport;
  /** One request at a time, as the server works on them. */
  readonly #turn = new Mutex();
  #id = 0;

  constructor(channel: ControlChannel, connectExport: ConnectExport) {
    this.#channel = channel;
    this.#lines = channel.lines()[Symbol.asyncIterator]();
    this.#connectExport = connectExport;
  }

  /** Where the server listens. */
  server(): Promise<ServerInfo> {
    return this.#ask('server', {}, serverInfoShape);
  }

  list(): Promise<readonly VolumeSummary[]> {
    return this.#ask('list', {}, list(summaryShape));
  }

  create(name: string, options: CreateOptions, progress: Progress): Promise<VolumeSummary> {
    return this.#ask('create', { name, ...options }, summaryShape, progress);
  }

  clone(name: string, asked: CloneAsked, progress: Progress): Promise<VolumeSummary> {
    return this.#ask('clone', { name, ...asked }, summaryShape, progress);
  }

  flatten(name: string, progress: Progress): Promise<FlattenReport> {
    return this.#ask('flatten', { name }, flattenShape, progress);
  }

  info(name: string): Promise<VolumeInfo> {
    return this.#ask('info', { name }, infoShape);
  }

  history(name: string, range: HistoryRange): Promise<readonly HistoryInterval[]> {
    return this.#ask('history', { name, ...range }, list(historyShape));
  }

  snapshots(name: string): Promise<readonly SnapshotInfo[]> {
    return this.#ask('snapshots', { name }, list(snapshotShape));
  }

  createSnapshot(name: string, label: string, moment?: string): Promise<SnapshotInfo> {
    return this.#ask('snapshot-create', { name, label, moment }, snapshotShape);
  }

  deleteSnapshot(name: string, label: string): Promise<void> {
    return this.#ask('snapshot-delete', { name, label }, nothing);
  }

  mark(name: string, label: string): Promise<MarkInfo> {
    return this.#ask('mark', { name, label }, markShape);
  }

  setWriteMode(name: string, mode: WriteMode): Promise<VolumeSummary> {
    return this.#ask('mode', { name, mode }, summaryShape);
  }

  setRetention(name: string, change: RetentionChange): Promise<RetentionReport> {
    return this.#ask('retention', { name, ...change }, retentionReportShape);
  }

  scrub(name: string, options: ScrubRequest, progress: Progress): Promise<ScrubReport> {
    return this.#ask('scrub', { name, ...options }, scrubShape, progress);
  }

  rollback(name: string, asked: RollbackAsked, progress: Progress): Promise<RollbackReport> {
    return this.#ask('rollback', { name, ...asked }, rollbackShape, progress);
  }

  vacate(name: string, force: boolean): Promise<Vacated> {
    return this.#ask('vacate', { name, force }, vacatedShape);
  }

  check(name: string, progress: Progress): Promise<CheckReport> {
    return this.#ask('check', { name }, checkShape, progress);
  }

  resolve(exportName: string): Promise<string> {
    return this.#ask('resolve', { name: exportName }, text);
  }

  async withExport<T>(
    name: string,
    _access: Access,
    work: (open: OpenExport) => Promise<T>,
  ): Promise<T> {
    const { nbdSocket } = await this.server();
    // The control socket tells what is wrong with a name by its code, NBD by a text only.
    const open = await this.#connectExport(nbdSocket, await this.resolve(name));
    try {
      return await work(open);
    } finally {
      await open.device.close();
    }
  }

  requests(name: string, asked: RequestsAsked): Promise<RequestPage> {
    return this.#ask('requests', { name, ...asked }, requestsShape);
  }

  async withHistory<T>(
    name: string,
    ends: HistoryEnds,
    work: (history: PinnedHistory) => Promise<T>,
  ): Promise<T> {
    const { nbdSocket } = await this.server();
    const resolved = async (moment: string): Promise<Generation> =>
      generationIn(await this.resolve(`${name}@${moment}`));
    const open = async (at: Generation): Promise<BlockDevice> =>
      (await this.#connectExport(nbdSocket, `${name}@gen=${at}`)).device;
    const from = await resolved(ends.from);
    const to = await resolved(ends.to);
    needOrder(from, to);
    needNoRollback((await this.info(name)).rollbacks, from, to);
    const pins: BlockDevice[] = [];
    try {
      const first = await open(from);
      pins.push(first, await open(to));
      const requests = (after: Generation): Promise<RequestPage> =>
        this.requests(name, { after, to });
      return await work({ size: first.size, from, to, requests, open });
    } finally {
      for (const pin of pins) await pin.close();
    }
  }

  async withPast<T>(name: string, work: (past: Past) => Promise<T>): Promise<T> {
    const ask: Ask = (call, request, shape, progress) => this.#ask(call, request, shape, progress);
    const open = async (exportName: string): Promise<OpenExport> =>
      this.#connectExport((await this.server()).nbdSocket, exportName);
    return await work(new RemotePast({ name, ask, open }));
  }

  async receive(
    name: string,
    chunks: AsyncIterable<Uint8Array>,
    progress: Progress,
  ): Promise<ReceiveReport> {
    const session = await this.#ask('receive-open', { name }, unit(Number));
    let done = 0;
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        const bytes = Buffer.from(chunk.subarray(at, at + PIECE_BYTES)).toString('base64');
        await this.#ask('receive-push', { name, session, bytes }, nothing);
      }
      done += chunk.length;
      progress(done, done);
    }
    return await this.#ask('receive-finish', { name, session }, receiveReportShape);
  }

  abortReceive(name: string, progress: Progress): Promise<void> {
    return this.#ask('receive-abort', { name }, nothing, progress);
  }

  async close(): Promise<void> {
    this.#channel.close();
  }

  async #ask<T>(
    call: string,
    request: object,
    shape: Shape<T>,
    progress: Progress = () => undefined,
  ): Promise<T> {
    return this.#turn.run(async () => {
      const id = ++this.#id;
      await this.#channel.send({ ...request, id, call });
      for (;;) {
        const line = await this.#lines.next();
        if (line.done === true) throw new VarveError('SERVER_GONE', `while asking for "${call}"`);
        const value = this.#understand(line.value, { id, shape, progress });
        if (value !== undefined) return value.result;
      }
    });
  }

  /** @returns undefined while the answer is not complete */
  #understand<T>(
    line: Line,
    { id, shape, progress }: { id: number; shape: Shape<T>; progress: Progress },
  ): { readonly result: T } | undefined {
    if (line.kind === 'bad') throw new VarveError('PROTOCOL', line.why);
    try {
      const answer = decodeAnswer(line.text);
      if (answer.kind === 'error') throw answer.error;
      if (answer.id !== id) throw new ShapeError('id', String(id));
      if (answer.kind === 'result') return { result: shape(answer.value, 'result') };
      progress(answer.done, answer.total);
      return undefined;
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      throw new VarveError('PROTOCOL', `the server's answer: ${error.message}`, { cause: error });
    }
  }
}
