/** The log device block by block for a scrub: a part of it in memory, read at the scrub's pace. */
import { isVarveError, type VarveError } from '../base/errors.ts';
import { BLOCK_BYTES, byteOffset, type ByteOffset } from '../base/units.ts';
import { readNarrowed } from '../device/read-narrowed.ts';
import type { ScrubRun } from './scrub-run.ts';

const WINDOW_BYTES = 1024 * 1024;

export class LogWindow {
  readonly #run: ScrubRun;
  #at = 0;
  #bytes = new Uint8Array(0);
  #refused: ReadonlyMap<number, VarveError> = new Map();

  constructor(run: ScrubRun) {
    this.#run = run;
  }

  /**
   * One block; valid until the next call.
   * @param ahead - bytes that are wanted from there on
   * @returns with `problem` when the device refuses it
   */
  async blockAt(
    at: ByteOffset,
    ahead = WINDOW_BYTES,
  ): Promise<{ readonly bytes: Uint8Array; readonly problem: string | undefined }> {
    const inside = at - this.#at;
    if (inside < 0 || inside + BLOCK_BYTES > this.#bytes.length) await this.#load(at, ahead);
    const from = at - this.#at;
    return {
      bytes: this.#bytes.subarray(from, from + BLOCK_BYTES),
      problem: this.#refused.get(from / BLOCK_BYTES)?.detail,
    };
  }

  async #load(at: ByteOffset, ahead: number): Promise<void> {
    const { device, geometry } = this.#run.core.log;
    const bytes = new Uint8Array(Math.min(ahead, geometry.logBytes - at));
    let refused: ReadonlyMap<number, VarveError> = new Map();
    try {
      await device.read(at, bytes);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      const read = (from: number, part: Uint8Array): Promise<void> =>
        device.read(byteOffset(at + from), part);
      refused = await readNarrowed(read, bytes);
    }
    this.#at = at;
    this.#bytes = bytes;
    this.#refused = refused;
    await this.#run.step(bytes.length);
  }
}
