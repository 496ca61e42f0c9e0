/**
 * The port that a client front end serves: a volume, or one moment of it. `src/nbd` knows this
 * and nothing of stages, log or index.
 */
import type { ByteCount, ByteOffset } from '../base/units.ts';

/** Undefined: done already, no promise was needed. Errors are thrown or rejected as VarveError. */
export type Done = Promise<void> | undefined;

export interface WriteOptions {
  /** Durable before it is done. */
  readonly fua: boolean;
}

export interface ZeroOptions extends WriteOptions {
  /** The range stays allocated: later writes there find their space reserved in final storage. */
  readonly allocate: boolean;
}

/** A run of bytes with one status; runs of an answer follow each other without a gap. */
export interface StatusRun {
  readonly length: ByteCount;
  /** Bits as the context defines them. */
  readonly flags: number;
}

/** base:allocation, as the NBD protocol defines it. */
export const STATE_HOLE = 1;
export const STATE_ZERO = 2;

export interface BlockDevice {
  readonly size: ByteCount;
  readonly readOnly: boolean;
  /** Largest payload of one request, in bytes. */
  readonly requestBytesMax: ByteCount;
  /** Fills `target` from `offset`; any alignment; `target` is borrowed until done. */
  read(offset: ByteOffset, target: Uint8Array): Done;
  /** Applies `source` whole or not at all; borrowed until done. */
  write(offset: ByteOffset, source: Uint8Array, options: WriteOptions): Done;
  /** Whole blocks inside the range read as zeros afterwards; the edges stay. Any length. */
  trim(offset: ByteOffset, length: ByteCount, options: WriteOptions): Done;
  /** The exact range reads as zeros afterwards. Any length. */
  zero(offset: ByteOffset, length: ByteCount, options: ZeroOptions): Done;
  /** Covers every request that was answered before the call, on any connection. */
  flush(): Done;
  /**
   * Brings as much as `scratch` is long into the cache, from `offset` on; a hint, which may do
   * nothing. `scratch` is borrowed until done, and of no use then.
   */
  cache(offset: ByteOffset, scratch: Uint8Array): Done;
  /** Names of the metadata contexts that match `query` (`base:`, `qemu:dirty-bitmap:x`, ...). */
  contexts(query: string | undefined): Promise<readonly string[]>;
  /**
   * Status runs from `offset` on; covers at least one byte, at most `length`, at most `runsMax`
   * runs. May stop short of `length`.
   * @param context - a name that `contexts` gave
   */
  status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]>;
  /**
   * The client went without a farewell: what it asked for and is not applied yet never is, so that
   * it does not land on what others write from now on. Calls go on until they are done; idempotent.
   * Without this, requests of clients that are gone are applied like any other.
   */
  abandon?(): void;
  /** Gives up what the opening holds (a pin); idempotent. */
  close(): Promise<void>;
}

/** What opening an export gives. */
export interface OpenExport {
  readonly device: BlockDevice;
  /** `disk`, or the canonical `disk@gen=N`. */
  readonly canonicalName: string;
  /** For people: size, lineage, moment. */
  readonly description: string;
  /** The same name opened twice gives the same content on both connections. */
  readonly multipleConnections: boolean;
  /**
   * The name by which `device.status` is asked for a context that is selected now; default: its own.
   * A moment in a name is resolved here, once, so that it does not move from one answer to the next.
   */
  readonly fixContext?: ((context: string) => string) | undefined;
  /**
   * Takes what ends the client's session, for when the export is taken from it; the device has to be
   * closed then.
   */
  readonly onRevoke?: ((end: (why: string) => void) => void) | undefined;
}

export interface ExportListing {
  readonly name: string;
  readonly description: string;
}

/** The door to all exports. */
export interface ExportDirectory {
  list(): Promise<readonly ExportListing[]>;
  /** @throws VarveError VOLUME_UNKNOWN, VOLUME_AMBIGUOUS, MOMENT_* with a text for the client */
  open(name: string): Promise<OpenExport>;
}
