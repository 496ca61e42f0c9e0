/** The volume as a block device: readable and writable, the newest state. One for each session. */
import { VarveError } from '../base/errors.ts';
import type { ByteCount, ByteOffset, Generation } from '../base/units.ts';
import type {
  BlockDevice,
  Done,
  StatusRun,
  WriteOptions,
  ZeroOptions,
} from '../device/block-device.ts';
import type { Appender, Client } from './appender.ts';
import type { Core } from './core.ts';
import { LATEST, type Reader } from './reader.ts';
import type { Status } from './status.ts';

/** @throws VarveError REQUEST_BAD; `READ` and others beyond the end are told apart by the caller */
export function needInside(offset: ByteOffset, length: number, size: ByteCount): void {
  const inside = offset >= 0 && length >= 0 && offset + length <= size;
  if (!inside) throw new VarveError('REQUEST_BAD', `[${offset}, +${length}) of ${size} bytes`);
}

export interface LiveParts {
  readonly core: Core;
  readonly reader: Reader;
  readonly appender: Appender;
  readonly status: Status;
}

export class LiveDevice implements BlockDevice, Client {
  readonly size: ByteCount;
  readonly requestBytesMax: ByteCount;
  readonly #core: Core;
  readonly #reader: Reader;
  readonly #appender: Appender;
  readonly #status: Status;
  readonly #onClose: () => void;
  isGone = false;

  constructor(parts: LiveParts, onClose: () => void = () => undefined) {
    const { core, reader, appender, status } = parts;
    this.size = core.size;
    this.requestBytesMax = core.log.geometry.requestBytesMax;
    this.#core = core;
    this.#reader = reader;
    this.#appender = appender;
    this.#status = status;
    this.#onClose = onClose;
  }

  get readOnly(): boolean {
    return this.#core.readOnly;
  }

  read(offset: ByteOffset, target: Uint8Array): Done {
    needInside(offset, target.length, this.size);
    if (this.#core.closed) throw new VarveError('CLOSED', 'the volume is closed');
    this.#needSteady();
    this.#core.counters.reads += 1;
    this.#core.counters.readBytes += target.length;
    const at = this.#at;
    const done = this.#reader.read(offset, target, at);
    return done === undefined ? undefined : this.#checked(done, { offset, target, at });
  }

  /** What clients see: the newest version, or what was there before a receive that goes on. */
  get #at(): Generation {
    const { receiving } = this.#core;
    if (receiving === undefined) return LATEST;
    if (receiving.isWhole) this.#core.needNoReceive('it can not be read');
    return receiving.base;
  }

  /** A receive may have begun while the read was under way, and the read may have seen some of it. */
  async #checked(
    done: Promise<void>,
    { offset, target, at }: { offset: ByteOffset; target: Uint8Array; at: Generation },
  ): Promise<void> {
    await done;
    if (at === LATEST && this.#core.receiving !== undefined) {
      await this.#reader.read(offset, target, this.#at);
    }
  }

  write(offset: ByteOffset, source: Uint8Array, { fua }: WriteOptions): Done {
    needInside(offset, source.length, this.size);
    if (source.length > this.requestBytesMax) {
      throw new VarveError('REQUEST_TOO_LONG', `${source.length} > ${this.requestBytesMax} bytes`);
    }
    this.#needSteady();
    return this.#appender.write(offset, source, fua, this);
  }

  trim(offset: ByteOffset, length: ByteCount, { fua }: WriteOptions): Done {
    needInside(offset, length, this.size);
    this.#needSteady();
    return this.#appender.trim(offset, length, fua, this);
  }

  zero(offset: ByteOffset, length: ByteCount, options: ZeroOptions): Done {
    needInside(offset, length, this.size);
    this.#needSteady();
    return this.#appender.zero(offset, length, options, this);
  }

  flush(): Done {
    return this.#appender.flush();
  }

  cache(offset: ByteOffset, scratch: Uint8Array): Done {
    needInside(offset, scratch.length, this.size);
    this.#needSteady();
    return this.#reader.read(offset, scratch, this.#at);
  }

  async contexts(query: string | undefined): Promise<readonly string[]> {
    return this.#status.contexts(query, this.#at);
  }

  status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    needInside(offset, length, this.size);
    this.#needSteady();
    return this.#status.runs(context, offset, length, runsMax, this.#at);
  }

  abandon(): void {
    this.isGone = true;
  }

  /** The volume itself is closed by whoever opened it. */
  async close(): Promise<void> {
    try {
      await this.#appender.settle();
    } finally {
      this.#onClose();
    }
  }

  /** While a rollback is under way the disk is a mixture of two moments. */
  #needSteady(): void {
    const { liveRefusal } = this.#core;
    if (liveRefusal !== undefined) throw liveRefusal();
  }
}
