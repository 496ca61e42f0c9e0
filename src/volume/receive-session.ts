/**
 * One stream, or the continuation of one, being applied to a volume, step by step.
 *
 * Invariant: a session does nothing any more once another one, or a giving up, has taken over; and
 * who takes over waits for the step that is under way.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, type Block, type Generation } from '../base/units.ts';
import type { StreamHeader, StreamPlace } from '../format/send.ts';
import type { Appender } from './appender.ts';
import {
  receivedEntry,
  receivingEntry,
  type Received,
  type Receiving,
} from './catalogue-entries.ts';
import type { Core } from './core.ts';
import { checkLabel } from './moment.ts';
import type { Moments } from './moments.ts';
import type { ReceiveReport } from './report.ts';

/**
 * @param take - makes a snapshot by this name
 * @param wanted - taken if it can be; else a name is made up, from the generation that was sent
 */
export async function keepSnapshot(
  take: (label: string) => Promise<unknown>,
  wanted: string,
  sent: Generation,
): Promise<string> {
  const plain = `received-gen-${sent}`;
  for (let tries = 0; ; tries++) {
    const label = tries === 0 && isLabel(wanted) ? wanted : tries < 2 ? plain : `${plain}-${tries}`;
    try {
      await take(label);
      return label;
    } catch (error) {
      if (!isVarveError(error, 'SNAPSHOT_EXISTS')) throw error;
    }
  }
}

function isLabel(text: string): boolean {
  try {
    checkLabel(text);
    return true;
  } catch (error) {
    if (isVarveError(error)) return false;
    throw error;
  }
}

interface SessionParts {
  readonly appender: Appender;
  readonly moments: Moments;
  readonly header: StreamHeader;
  readonly receiving: Receiving;
}

export class ReceiveSession {
  readonly #core: Core;
  readonly #parts: SessionParts;
  /** The place that is on its way to the device; at most one is. */
  #keeping: Promise<unknown> = Promise.resolve();
  #step: Promise<unknown> = Promise.resolve();
  #isOver = false;

  constructor(core: Core, parts: SessionParts) {
    this.#core = core;
    this.#parts = parts;
  }

  /** @param bytes - whole blocks, borrowed until done */
  data(block: Block, bytes: Uint8Array): Promise<void> {
    return this.#run(() => this.#data(block, bytes));
  }

  zeros(kind: 'hole' | 'allocated', block: Block, count: number): Promise<void> {
    return this.#run(async () => {
      const offset = byteOffset(block * BLOCK_BYTES);
      const length = byteCount(Math.min(this.#core.size - offset, count * BLOCK_BYTES));
      const options = { fua: false, allocate: kind === 'allocated' };
      await this.#parts.appender.zero(offset, length, options, 'receive');
    });
  }

  /** All up to a place was applied: a later session may go on there. Not waited for. */
  keep(place: StreamPlace): Promise<void> {
    return this.#run(async () => {
      await this.#keeping;
      const entry = receivingEntry({ ...this.#parts.receiving, place });
      this.#keeping = this.#parts.moments.record(entry);
      // Who comes next hears of a failure.
      this.#keeping.catch(() => undefined);
    });
  }

  /** The place that was kept last is durable. */
  kept(): Promise<void> {
    return this.#run(async () => {
      await this.#keeping;
    });
  }

  /** The stream is whole: from now on the disk is what was sent. Durable when it is done. */
  end(): Promise<ReceiveReport> {
    return this.#run(() => this.#end());
  }

  /** Does nothing more; waits for the step under way, whatever becomes of it. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.allSettled([this.#step, this.#keeping]);
  }

  async #run<T>(step: () => Promise<T>): Promise<T> {
    if (this.#isOver) {
      throw new VarveError('CLOSED', 'another receive has taken over, or this one was given up');
    }
    const running = step();
    this.#step = running;
    return await running;
  }

  async #data(block: Block, bytes: Uint8Array): Promise<void> {
    const { size, log } = this.#core;
    const pieceMax = Math.floor(log.geometry.requestBytesMax / BLOCK_BYTES) * BLOCK_BYTES;
    const first = block * BLOCK_BYTES;
    const end = Math.min(size, first + bytes.length);
    for (let at = first; at < end; at += pieceMax) {
      const piece = bytes.subarray(at - first, Math.min(end, at + pieceMax) - first);
      await this.#parts.appender.write(byteOffset(at), piece, false, 'receive');
    }
  }

  async #end(): Promise<ReceiveReport> {
    await this.#keeping;
    const core = this.#core;
    const { header, receiving, moments } = this.#parts;
    const { volume, moment, base } = receiving;
    const received: Received = {
      volume,
      moment,
      base,
      momentWallUs: header.toWallUs,
      createdWallUs: core.world.clock.wallUs(),
      generation: core.head,
      label: isLabel(header.label) ? header.label : '',
    };
    await moments.record(receivedEntry(received));
    core.receiving = undefined;
    this.#isOver = true;
    const { generation } = received;
    const take = (label: string): Promise<unknown> =>
      moments.createSnapshot(label, `gen=${generation}`);
    const snapshot = await keepSnapshot(take, received.label, moment.generation);
    return { volume, ...moment, wallUs: header.toWallUs, base, here: generation, snapshot };
  }
}
