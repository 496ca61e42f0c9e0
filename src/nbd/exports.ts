/**
 * The exports that one handshake has open. A name is resolved once in a connection, so what INFO
 * told GO also gives, and a relative moment does not move in between.
 *
 * Invariant: between options no export is open that may be taken from its client (the live disk),
 * as who only asks about it would count among those that have it open, and could not be ended.
 */
import { isVarveError } from '../base/errors.ts';
import type { BlockDevice, ExportDirectory, OpenExport } from '../device/block-device.ts';
import { HANDSHAKE_EXPORTS_MAX, PAYLOAD_BYTES_MAX } from './limits.ts';
import type { ExportFacts } from './options.ts';
import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from './protocol.ts';

const FLAGS_ALWAYS =
  NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;
const FLAGS_WRITABLE = NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;

/** Each flag only where it is true. */
export function transmissionFlags(opened: OpenExport, structured: boolean): number {
  return (
    FLAGS_ALWAYS |
    (opened.device.readOnly ? NBD_FLAG_READ_ONLY : FLAGS_WRITABLE) |
    (structured ? NBD_FLAG_SEND_DF : 0) |
    (opened.multipleConnections ? NBD_FLAG_CAN_MULTI_CONN : 0)
  );
}

/** @param budgetBytesMax - the largest payload that the server's budget allows */
export function payloadBytesMax(device: BlockDevice, budgetBytesMax: number): number {
  return Math.min(device.requestBytesMax, PAYLOAD_BYTES_MAX, budgetBytesMax);
}

export function exportFacts(
  opened: OpenExport,
  { structured, budgetBytesMax }: { structured: boolean; budgetBytesMax: number },
): ExportFacts {
  return {
    size: opened.device.size,
    flags: transmissionFlags(opened, structured),
    canonicalName: opened.canonicalName,
    description: opened.description,
    payloadBytesMax: payloadBytesMax(opened.device, budgetBytesMax),
  };
}

/** Closing gives up what an opening holds; that it failed changes nothing for a client. */
export async function closeDevice(device: BlockDevice): Promise<void> {
  try {
    await device.close();
  } catch (error) {
    if (!isVarveError(error)) throw error;
  }
}

export class HandshakeExports {
  readonly #directory: ExportDirectory;
  /** By name as the client wrote it, the one used last at the end. */
  readonly #open = new Map<string, OpenExport>();

  constructor(directory: ExportDirectory) {
    this.#directory = directory;
  }

  /** @throws VarveError as `ExportDirectory.open` does */
  async open(name: string): Promise<OpenExport> {
    const known = this.#open.get(name);
    if (known !== undefined) {
      this.#open.delete(name);
      this.#open.set(name, known);
      return known;
    }
    for (const [oldest, { device }] of this.#open) {
      if (this.#open.size < HANDSHAKE_EXPORTS_MAX) break;
      this.#open.delete(oldest);
      await closeDevice(device);
    }
    const opened = await this.#directory.open(name);
    this.#open.set(name, opened);
    return opened;
  }

  /** After an option that began no session: its name means the same when it is opened again. */
  async letGo(): Promise<void> {
    for (const [name, { device, onRevoke }] of this.#open) {
      if (onRevoke === undefined) continue;
      this.#open.delete(name);
      await closeDevice(device);
    }
  }

  /** Closes all but `kept`, which is the caller's from now on. */
  async close(kept?: OpenExport): Promise<void> {
    const rest = [...this.#open.values()].filter((opened) => opened !== kept);
    this.#open.clear();
    for (const { device } of rest) await closeDevice(device);
  }
}
