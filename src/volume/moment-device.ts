/**
 * One moment of the volume as a read-only block device. It pins the moment while it is open; a pin
 * that is no snapshot's never stops writers: when its space is needed it ends, and reads say so.
 */
import { VarveError } from '../base/errors.ts';
import type { ByteCount, ByteOffset, Generation } from '../base/units.ts';
import type { BlockDevice, Done, StatusRun } from '../device/block-device.ts';
import type { PinHandle } from '../../index/pins.ts';
import type { Core, PinReason } from './core.ts';
import { needInside } from './live-device.ts';
import type { Reader } from './reader.ts';
import type { Status } from './status.ts';

export class MomentDevice implements BlockDevice {
  readonly size: ByteCount;
  readonly requestBytesMax: ByteCount;
  readonly readOnly = true;
  readonly generation: Generation;
  readonly #core: Core;
  readonly #reader: Reader;
  readonly #status: Status;
  readonly #onUnpin: () => void;
  #pin: PinHandle<PinReason> | undefined;
  #ended = false;
  #isClosed = false;

  constructor(
    core: Core,
    reader: Reader,
    status: Status,
    { generation, onUnpin }: { generation: Generation; onUnpin: () => void },
  ) {
    this.size = core.size;
    this.requestBytesMax = core.log.geometry.requestBytesMax;
    this.generation = generation;
    this.#core = core;
    this.#reader = reader;
    this.#status = status;
    this.#onUnpin = onUnpin;
    this.#pin = core.pinOpen(generation, () => this.#end());
  }

  read(offset: ByteOffset, target: Uint8Array): Done {
    needInside(offset, target.length, this.size);
    this.#needOpen();
    this.#core.counters.reads += 1;
    this.#core.counters.readBytes += target.length;
    const done = this.#reader.read(offset, target, this.generation);
    return done === undefined ? undefined : this.#checked(done);
  }

  /** A round may have taken the moment while the read was under way. */
  async #checked(done: Promise<void>): Promise<void> {
    try {
      await done;
    } finally {
      this.#needOpen();
    }
  }

  write(): Done {
    throw readOnly(this.generation);
  }

  trim(): Done {
    throw readOnly(this.generation);
  }

  zero(): Done {
    throw readOnly(this.generation);
  }

  flush(): Done {
    return undefined;
  }

  cache(offset: ByteOffset, scratch: Uint8Array): Done {
    return this.read(offset, scratch);
  }

  contexts(query: string | undefined): Promise<readonly string[]> {
    return Promise.resolve(this.#status.contexts(query, this.generation));
  }

  async status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    needInside(offset, length, this.size);
    this.#needOpen();
    const runs = await this.#status.runs(context, offset, length, runsMax, this.generation);
    this.#needOpen();
    return runs;
  }

  /** Reads that are under way are refused: nothing keeps the moment for them any more. */
  close(): Promise<void> {
    this.#isClosed = true;
    if (this.#pin !== undefined) {
      this.#core.unpin(this.#pin);
      this.#pin = undefined;
      // Of a snapshot's nothing has gone.
      if (!this.#core.pins.isPinned(this.generation)) this.#onUnpin();
    }
    return Promise.resolve();
  }

  #end(): void {
    this.#ended = true;
    if (this.#pin !== undefined) this.#core.unpin(this.#pin);
    this.#pin = undefined;
  }

  #needOpen(): void {
    if (this.#core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    if (this.#isClosed) throw new VarveError('CLOSED', `generation ${this.generation} is closed`);
    if (this.#ended) throw new VarveError('MOMENT_GONE', `generation ${this.generation}`);
  }
}

function readOnly(generation: Generation): VarveError {
  return new VarveError('READ_ONLY', `generation ${generation}`);
}
