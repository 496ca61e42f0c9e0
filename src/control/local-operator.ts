/** The operator that has the volumes itself, by way of a pool. */
import { isVarveError, VarveError } from '../base/errors.ts';
import { Mutex } from '../base/mutex.ts';
import { BLOCK_BYTES, byteCount } from '../base/units.ts';
import type { OpenExport } from '../device/block-device.ts';
import type { RequestPage } from '../device/request-record.ts';
import { checkLabel, parseMoment } from '../volume/moment.ts';
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
import { baseText } from './base-record.ts';
import { keepMoment, needNoClones, needShallow } from './clones.ts';
import { changedPolicy, type RetentionChange } from '../volume/retention-policy.ts';
import { openExport, parseExportName } from './export-directory.ts';
import { needNoRollback, needOrder } from './pinned-history.ts';
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
import { LocalPast, type Past } from './past.ts';
import { receiveAll } from './receive.ts';
import { join } from 'node:path';
import type { Access, CreateOptions, VolumeDirectory } from './volume-directory.ts';
import type { VolumePool } from './volume-pool.ts';
import { checkVolumeName, pathOf, type VolumeRecord } from './volume-record.ts';

export class LocalOperator implements Operator {
  readonly isServed: boolean;
  readonly #directory: VolumeDirectory;
  readonly #pool: VolumePool;
  /** No snapshot goes while a clone of it is made. */
  readonly #clones = new Mutex();
  readonly #policies = new Mutex();

  /** @param options - `isServed`: this is a server's own operator */
  constructor(
    directory: VolumeDirectory,
    pool: VolumePool,
    { isServed }: { readonly isServed: boolean },
  ) {
    this.isServed = isServed;
    this.#directory = directory;
    this.#pool = pool;
  }

  async list(): Promise<readonly VolumeSummary[]> {
    const summaries: VolumeSummary[] = [];
    for (const name of await this.#directory.names()) {
      summaries.push(await this.#known(name));
    }
    return summaries;
  }

  async create(name: string, options: CreateOptions, progress: Progress): Promise<VolumeSummary> {
    const record = await this.#directory.create(name, options, progress);
    await this.#pool.added(name);
    return this.#summary(name, record);
  }

  clone(name: string, { of, logSize }: CloneAsked, progress: Progress): Promise<VolumeSummary> {
    checkVolumeName(name);
    const { volume: origin, moment } = parseExportName(of);
    if (moment !== undefined) parseMoment(moment);
    return this.#clones.run(async () => {
      const directory = this.#directory;
      if (await directory.has(name)) {
        throw new VarveError('VOLUME_EXISTS', `"${name}" in ${directory.path}`);
      }
      const record = await this.#pool.use(origin, 'write', async (volume) => {
        await needShallow(directory, origin);
        const { snapshot, isNew } = await keepMoment(volume, moment, name);
        const { label, generation, lineage } = snapshot;
        const { uuid, size } = volume;
        const kept = { snapshot: label, generation, lineage };
        const base = {
          kind: 'volume',
          name: origin,
          uuid,
          size,
          ...kept,
          isCopied: false,
        } as const;
        try {
          return await directory.create(name, { origin: base, logSize }, progress);
        } catch (error) {
          if (isNew) await volume.deleteSnapshot(label);
          throw error;
        }
      });
      await this.#pool.added(name);
      return this.#summary(name, record);
    });
  }

  flatten(name: string, progress: Progress): Promise<FlattenReport> {
    return this.#pool.use(name, 'write', async (volume) => {
      const base = await this.#directory.copyBase(name);
      const blocks = await volume.flatten(() => this.#directory.dropBase(name), progress);
      return { copiedBytes: byteCount(blocks * BLOCK_BYTES), base: baseText(base) };
    });
  }

  info(name: string): Promise<VolumeInfo> {
    return this.#pool.use(name, 'read', (volume) => volume.info());
  }

  history(name: string, range: HistoryRange): Promise<readonly HistoryInterval[]> {
    return this.#pool.use(name, 'read', async (volume) => volume.history(range));
  }

  snapshots(name: string): Promise<readonly SnapshotInfo[]> {
    return this.#pool.use(name, 'read', async (volume) => volume.snapshots());
  }

  async createSnapshot(name: string, label: string, moment?: string): Promise<SnapshotInfo> {
    checkLabel(label);
    if (moment !== undefined) parseMoment(moment);
    return this.#pool.use(name, 'write', (volume) => volume.createSnapshot(label, moment));
  }

  deleteSnapshot(name: string, label: string): Promise<void> {
    return this.#clones.run(() =>
      this.#pool.use(name, 'write', async (volume) => {
        await needNoClones(this.#directory, { name, label });
        await volume.deleteSnapshot(label);
      }),
    );
  }

  async mark(name: string, label: string): Promise<MarkInfo> {
    checkLabel(label);
    return this.#pool.use(name, 'write', (volume) => volume.mark(label));
  }

  async setWriteMode(name: string, mode: WriteMode): Promise<VolumeSummary> {
    const volume = this.#pool.find(name);
    const access = volume === undefined ? 'free' : 'locked';
    const record = await this.#directory.change(name, access, () => ({ writeMode: mode }));
    volume?.setWriteMode(mode);
    return this.#summary(name, record);
  }

  setRetention(name: string, change: RetentionChange): Promise<RetentionReport> {
    // One after the other, and with the volume open: what was written last is what holds.
    return this.#policies.run(() =>
      this.#pool.use(name, 'write', async (volume) => {
        const { retention } = await this.#directory.change(name, 'locked', (record) => ({
          retention: changedPolicy(record.retention, change),
        }));
        return await volume.setRetention(retention);
      }),
    );
  }

  async check(name: string, progress: Progress): Promise<CheckReport> {
    if (this.isServed) throw new VarveError('SERVER_RUNS', `"${name}" is being served`);
    return this.#pool.use(name, 'read', (volume) => volume.check(progress));
  }

  async scrub(name: string, options: ScrubRequest, progress: Progress): Promise<ScrubReport> {
    return this.#pool.use(name, 'write', (volume) => volume.scrub({ ...options, progress }));
  }

  async rollback(name: string, asked: RollbackAsked, progress: Progress): Promise<RollbackReport> {
    parseMoment(asked.to);
    const access = asked.dryRun ? 'read' : 'write';
    return this.#pool.use(name, access, (volume) => volume.rollback(asked, progress));
  }

  vacate(name: string, force: boolean): Promise<Vacated> {
    return this.#pool.use(name, 'write', (volume) => volume.vacate(force));
  }

  resolve(exportName: string): Promise<string> {
    const { volume: wanted, moment } = parseExportName(exportName);
    return this.#pool.use(wanted, 'read', async (volume) => {
      if (moment === undefined) return wanted;
      return `${wanted}@gen=${(await volume.resolve(moment)).generation}`;
    });
  }

  withExport<T>(name: string, access: Access, work: (open: OpenExport) => Promise<T>): Promise<T> {
    const { volume: wanted, moment } = parseExportName(name);
    return this.#pool.use(wanted, access, async (volume) => {
      const open = await openExport(volume, moment);
      try {
        return await work(open);
      } finally {
        if (access === 'write' || moment !== undefined) await open.device.close();
      }
    });
  }

  requests(name: string, asked: RequestsAsked): Promise<RequestPage> {
    return this.#pool.use(name, 'read', (volume) => volume.requests(asked));
  }

  withHistory<T>(
    name: string,
    ends: HistoryEnds,
    work: (history: PinnedHistory) => Promise<T>,
  ): Promise<T> {
    return this.#pool.use(name, 'read', async (volume) => {
      const from = await volume.resolve(ends.from);
      const to = await volume.resolve(ends.to);
      needOrder(from.generation, to.generation);
      const { generation } = to;
      needNoRollback((await volume.info()).rollbacks, from.generation, generation);
      const pins = [volume.openMoment(from), volume.openMoment(to)];
      try {
        return await work({
          size: volume.size,
          from: from.generation,
          to: generation,
          requests: (after) => volume.requests({ after, to: generation }),
          open: async (at) => volume.openMoment({ generation: at }),
        });
      } finally {
        for (const pin of pins) await pin.close();
      }
    });
  }

  withPast<T>(name: string, work: (past: Past) => Promise<T>): Promise<T> {
    return this.#pool.use(name, 'read', (volume) => work(new LocalPast(volume)));
  }

  receive(
    name: string,
    chunks: AsyncIterable<Uint8Array>,
    progress: Progress,
  ): Promise<ReceiveReport> {
    return this.#pool.use(name, 'write', (volume) => receiveAll(volume, chunks, progress));
  }

  abortReceive(name: string, progress: Progress): Promise<void> {
    return this.#pool.use(name, 'write', (volume) => volume.receiver.abort(progress));
  }

  async close(): Promise<void> {
    // Nothing is open between calls.
  }

  /** Also where its record can't be read: the others are listed all the same. */
  async #known(name: string): Promise<VolumeSummary> {
    try {
      return this.#summary(name, await this.#directory.record(name));
    } catch (error) {
      if (!isVarveError(error)) throw error;
      const failure = `${error.code}: ${error.message}`;
      const none = byteCount(0);
      const sizes = { size: none, logSize: none, ringSize: none };
      const texts = { uuid: '', createdAt: '', log: '', final: '', base: undefined };
      return { name, ...sizes, ...texts, writeMode: 'back', failure };
    }
  }

  #summary(name: string, record: VolumeRecord): VolumeSummary {
    const { uuid, size, logSize, ringSize, writeMode, createdAt } = record;
    const folder = join(this.#directory.path, name);
    const log = pathOf(folder, record.log);
    const final = pathOf(folder, record.final);
    const base = record.base && baseText(record.base);
    const failed = this.#pool.failure(name);
    const failure = failed && `${failed.code}: ${failed.message}`;
    const sizes = { size, logSize, ringSize };
    return { name, uuid, ...sizes, writeMode, createdAt, log, final, base, failure };
  }
}
