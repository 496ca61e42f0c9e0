/**
 * Receiving what another volume sent: changes are written behind the head while clients go on seeing
 * the disk as it was; one record of the catalogue then shows them all.
 *
 * Invariants:
 *   - A stream fits only where the disk is what it is based on, and nothing was written since.
 *   - What clients see is the moment before or the one that was sent, after a crash too: the record
 *     that a receive begins is durable before its first write, and its end is one record.
 *   - A place is kept only behind the writes that lead to it, so what counts is there.
 */
import { VarveError } from '../base/errors.ts';
import { NIL_UUID } from '../base/identity.ts';
import { Mutex } from '../base/mutex.ts';
import {
  byteOffset,
  generation as generationOf,
  type ByteCount,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import {
  beginningOf,
  encodeToken,
  type SentMoment,
  type StreamHeader,
  type StreamPlace,
} from '../format/send.ts';
import type { Appender } from './appender.ts';
import {
  receivedEntry,
  receivingEntry,
  type Received,
  type Receiving,
} from './catalogue-entries.ts';
import type { Core } from './core.ts';
import type { Moments } from './moments.ts';
import { eachPiece, putBack } from './put-back.ts';
import type { Reader } from './reader.ts';
import { keepSnapshot, ReceiveSession } from './receive-session.ts';
import type { Progress, ReceiveInfo } from './report.ts';

export interface ReceiverParts {
  readonly appender: Appender;
  readonly moments: Moments;
  readonly reader: Reader;
}

function isSame(one: SentMoment | undefined, other: SentMoment | undefined): boolean {
  return one?.lineage === other?.lineage && one?.generation === other?.generation;
}

function told(volume: string, { generation, lineage }: SentMoment): string {
  return `generation ${generation} (lineage ${lineage}) of volume ${volume}`;
}

function labelled({ label, volume, moment }: Received): string {
  const what = told(volume, moment);
  return label === '' ? what : `snapshot ${label}, ${what}`;
}

export class Receiver {
  readonly #core: Core;
  readonly #parts: ReceiverParts;
  /** Beginnings and givings up come one after the other. */
  readonly #turns = new Mutex();
  #session: ReceiveSession | undefined;

  constructor(core: Core, parts: ReceiverParts) {
    this.#core = core;
    this.#parts = parts;
  }

  info(): ReceiveInfo {
    const { catalogue, shown } = this.#core;
    const last = catalogue.isBlank ? undefined : catalogue.received.at(-1);
    const { receiving } = catalogue;
    const since = this.#base;
    return {
      received: last && {
        volume: last.volume,
        ...last.moment,
        wallUs: last.momentWallUs,
        here: last.generation,
        isUnchanged: last.generation === shown,
      },
      unfinished: receiving && {
        volume: receiving.volume,
        ...receiving.moment,
        records: receiving.place.records,
        isAborted: receiving.isAborted,
        token: encodeToken({
          volume: receiving.volume,
          from: since,
          to: receiving.moment,
          place: receiving.place,
        }),
      },
    };
  }

  /** What a stream has to be based on; undefined: on nothing. */
  get #base(): SentMoment | undefined {
    const { catalogue } = this.#core;
    return catalogue.isBlank ? undefined : catalogue.received.at(-1)?.moment;
  }

  /**
   * Begins a receive, or goes on with it; another session of this volume ends.
   * @throws VarveError STREAM_MISFIT, RECEIVE_UNFINISHED, READ_ONLY and others of a write
   */
  begin(header: StreamHeader): Promise<ReceiveSession> {
    return this.#turns.run(() => this.#begin(header));
  }

  async #begin(header: StreamHeader): Promise<ReceiveSession> {
    const core = this.#core;
    await this.#session?.stop();
    core.needWritable();
    // A rollback is under way, and has the disk for itself.
    if (core.liveRefusal !== undefined) throw core.liveRefusal();
    const before = core.receiving;
    const { catalogue } = core;
    const known = catalogue.receiving;
    const receiving = known === undefined ? this.#planNew(header) : planAgain(header, known);
    this.#needFit(header);
    // From here on no client writes: nothing was awaited since the head was looked at.
    const isWhole = catalogue.isBlank;
    core.receiving = before ?? { base: receiving.base, isWhole };
    const session = new ReceiveSession(core, { ...this.#parts, header, receiving });
    this.#session = session;
    try {
      if (!isWhole) await this.#keepBase(receiving.base);
      if (known === undefined || known.place.records !== receiving.place.records) {
        await session.keep(receiving.place);
        await session.kept();
      }
      return session;
    } catch (error) {
      if (catalogue.receiving === undefined && core.failure === undefined) core.receiving = before;
      throw error;
    }
  }

  /**
   * Gives up a receive: what it changed is put back, and the disk is what it was before.
   * @throws VarveError RECEIVE_NONE, UNDO_FULL and others of a write; it can be asked for again then
   */
  abort(progress: Progress): Promise<void> {
    return this.#turns.run(() => this.#abort(progress));
  }

  async #abort(progress: Progress): Promise<void> {
    const core = this.#core;
    await this.#session?.stop();
    core.needWritable();
    const { receiving } = core.catalogue;
    if (receiving === undefined) {
      throw new VarveError('RECEIVE_NONE', 'there is nothing to give up');
    }
    const { moments } = this.#parts;
    if (!receiving.isAborted) {
      await moments.record(receivingEntry({ ...receiving, isAborted: true }));
    }
    if (core.receiving?.isWhole === true) {
      await this.#zero(byteOffset(0), core.size, false);
    } else {
      const { reader, appender } = this.#parts;
      const span = { target: receiving.base, bound: core.head };
      const parts = { reader, appender, by: 'receive' } as const;
      let total = 0;
      await eachPiece(
        core,
        { ...span, zerosBy: 'sums' },
        () => undefined,
        async ({ kind, count }) => {
          if (kind === 'data') total += count;
        },
      );
      await putBack(core, parts, span, (done) => progress(done, total));
    }
    const last = core.catalogue.received.at(-1);
    const blank = { volume: NIL_UUID, moment: { lineage: NIL_UUID, generation: generationOf(0) } };
    const wallUs = core.world.clock.wallUs();
    await moments.record(
      receivedEntry({
        ...blank,
        momentWallUs: wallUs,
        label: '',
        ...last,
        createdWallUs: wallUs,
        base: receiving.base,
        generation: core.head,
      }),
    );
    core.receiving = undefined;
  }

  #planNew({ identity, place }: StreamHeader): Receiving {
    const { volume, from, to } = identity;
    const { head } = this.#core;
    const last = this.#core.catalogue.received.at(-1);
    const what = told(volume, to);
    if (place !== undefined) {
      throw new VarveError('STREAM_MISFIT', `it goes on with ${what}, and nothing is unfinished`);
    }
    const writtenSince = head - (last?.generation ?? 0);
    const isHere = last?.volume === volume && isSame(last.moment, to) && writtenSince === 0;
    // One that changes nothing, since the moment that is here, fits.
    if (isHere && !isSame(from, to)) {
      const next = 'nothing has to be done; send what came later, `--from` this one';
      const holds = `it holds that already: ${labelled(last)}`;
      throw new VarveError('STREAM_MISFIT', holds, { next });
    }
    if (from === undefined) {
      if (!this.#core.catalogue.isBlank || writtenSince !== 0) {
        throw new VarveError('STREAM_MISFIT', 'a whole disk, and this one has been written');
      }
      // What a whole disk leaves out is zeros.
      if (this.#core.final.hadBase) {
        throw new VarveError('STREAM_MISFIT', 'a whole disk, and this one is based on another');
      }
    } else {
      const base = this.#base;
      if (base === undefined || last?.volume !== volume || !isSame(base, from)) {
        const holds =
          base === undefined || last === undefined ? 'nothing that was received' : labelled(last);
        throw new VarveError(
          'STREAM_MISFIT',
          `it is since ${told(volume, from)}; this is ${holds}`,
        );
      }
      if (writtenSince !== 0) {
        const since = `${writtenSince} requests have changed it since, at generation ${last.generation}`;
        throw new VarveError('STREAM_MISFIT', `the disk was ${told(volume, from)}; ${since}`);
      }
    }
    return { volume, moment: to, base: head, place: beginningOf(identity), isAborted: false };
  }

  #needFit({ identity }: StreamHeader): void {
    const { size } = this.#core;
    if (identity.size !== size) {
      const both = `the stream is of ${identity.size} bytes, the disk has ${size}`;
      throw new VarveError('STREAM_MISFIT', both);
    }
    const known = this.#core.catalogue.receiving;
    if (known !== undefined && !isSame(this.#base, identity.from)) {
      throw new VarveError('STREAM_MISFIT', `another moment was begun from than it is since`);
    }
  }

  /** There is a snapshot of what the disk is, for whoever wants that moment later. */
  async #keepBase(base: Generation): Promise<void> {
    const { moments } = this.#parts;
    const last = this.#core.catalogue.received.at(-1);
    const take = (label: string): Promise<void> => moments.ensureSnapshotAt(base, label);
    await keepSnapshot(take, last?.label ?? '', last?.moment.generation ?? base);
  }

  async #zero(offset: ByteOffset, length: ByteCount, allocate: boolean): Promise<void> {
    await this.#parts.appender.zero(offset, length, { fua: false, allocate }, 'receive');
  }
}

/** The same receive again, from where it stands or from the beginning. */
function planAgain({ identity, place }: StreamHeader, known: Receiving): Receiving {
  const { volume, to } = identity;
  if (known.isAborted) {
    throw new VarveError('RECEIVE_UNFINISHED', 'it is being given up, which has not ended');
  }
  if (known.volume !== volume || !isSame(known.moment, to)) {
    const both = `got ${told(volume, to)}, expected ${told(known.volume, known.moment)}`;
    throw new VarveError('RECEIVE_UNFINISHED', `of another moment: ${both}`);
  }
  if (place === undefined) return { ...known, place: beginningOf(identity) };
  if (!isSamePlace(place, known.place)) {
    const both = `it goes on at record ${place.records}, this stands at ${known.place.records}`;
    throw new VarveError('STREAM_MISFIT', both);
  }
  return known;
}

function isSamePlace(one: StreamPlace, other: StreamPlace): boolean {
  return (
    one.records === other.records &&
    one.nextBlock === other.nextBlock &&
    one.digest === other.digest
  );
}
