/** A snapshot of an open volume as what other volumes are based on: kept while it is open. */
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import type { ByteCount, ByteOffset, Generation } from '../base/units.ts';
import type { StatusRun } from '../device/block-device.ts';
import type { PinHandle } from '../../index/pins.ts';
import type { BaseDisk } from './base-disk.ts';
import type { Core, PinReason } from './core.ts';
import type { Reader } from './reader.ts';
import { BASE_ALLOCATION, type Status } from './status.ts';

/** The snapshot, as whoever is based on it remembers it. */
export interface OriginMoment {
  readonly snapshot: string;
  readonly generation: Generation;
  readonly lineage: Uuid;
}

export class OriginDisk implements BaseDisk {
  readonly size: ByteCount;
  /** Where the write of a page of checksums was lost, it says "never written" of data. */
  readonly hidesDamage = true;
  readonly #core: Core;
  readonly #reader: Reader;
  readonly #status: Status;
  readonly #moment: OriginMoment;
  #pin: PinHandle<PinReason> | undefined;

  /** @throws VarveError BASE_MISSING, BASE_CHANGED */
  constructor(core: Core, reader: Reader, status: Status, moment: OriginMoment) {
    const { snapshot, generation, lineage } = moment;
    const found = core.catalogue.snapshots.get(snapshot);
    if (found === undefined) throw new VarveError('BASE_MISSING', `no snapshot "${snapshot}"`);
    if (found.generation !== generation || found.lineage !== lineage) {
      const got = `got generation ${found.generation} of lineage ${found.lineage}`;
      const both = `${got}, expected ${generation} of ${lineage}`;
      throw new VarveError('BASE_CHANGED', `snapshot "${snapshot}": ${both}`);
    }
    this.size = core.size;
    this.#core = core;
    this.#reader = reader;
    this.#status = status;
    this.#moment = moment;
    this.#pin = core.pin(generation, { kind: 'base', label: snapshot });
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#needOpen();
    await this.#reader.read(offset, target, this.#moment.generation);
  }

  extents(offset: ByteOffset, length: ByteCount, runsMax: number): Promise<readonly StatusRun[]> {
    this.#needOpen();
    return this.#status.runs(BASE_ALLOCATION, offset, length, runsMax, this.#moment.generation);
  }

  /** Idempotent. */
  close(): Promise<void> {
    const pin = this.#pin;
    this.#pin = undefined;
    if (pin !== undefined && !this.#core.closed) this.#core.unpin(pin);
    return Promise.resolve();
  }

  #needOpen(): void {
    const isOpen = this.#pin !== undefined && !this.#core.closed;
    if (!isOpen) throw new VarveError('CLOSED', `snapshot "${this.#moment.snapshot}"`);
  }
}
