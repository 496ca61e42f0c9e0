/**
 * Making the files of a new volume, or none.
 *
 * Invariants:
 *   - Only files that were made here are removed when it fails; what was there before stays.
 *   - A path or device that may hold somebody's data is refused before anything is written: of a raw
 *     device all that the volume would take is read, as final storage has no header to know it by.
 */
import { VarveError, isVarveError } from '../base/errors.ts';
import { byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import type { LowerDevice, OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import { SliceDevice } from '../device/slice-device.ts';
import { isZero } from '../device/zeros.ts';
import type { Progress } from '../volume/report.ts';

const READ_BYTES = mebibytes(4);

export class VolumeMaker {
  readonly #files: MetaFiles;
  readonly #openDevice: OpenDevice;
  readonly #opened: LowerDevice[] = [];
  readonly #made: string[] = [];

  constructor(files: MetaFiles, openDevice: OpenDevice) {
    this.#files = files;
    this.#openDevice = openDevice;
  }

  /** Counts `path` among what `undo` removes. */
  adopt(path: string): void {
    this.#made.push(path);
  }

  /**
   * A new sparse file of that size, or the beginning of a raw device that is all zeros there.
   * @param secondName - of a file, which has it from before it has the first; not of a device, nor
   *   where the file system gives a file one name only
   * @throws VarveError LOG_IN_USE, SIZE_BAD, FILE_BAD, PERMISSION, DISK_FULL, DEVICE_IO
   */
  async device(
    path: string,
    size: ByteCount,
    {
      secondName,
      progress,
    }: { readonly secondName?: string | undefined; readonly progress: Progress },
  ): Promise<LowerDevice> {
    const kind = await this.#files.kind(path);
    switch (kind) {
      case 'none': {
        const isThere = secondName !== undefined && (await this.#named(path, secondName, size));
        const device = isThere
          ? await this.#openDevice(path, { size, locked: true })
          : await this.#openDevice(path, { create: true, size, locked: true }).catch(
              refuseUsed(path),
            );
        this.#opened.push(device);
        if (!isThere) this.#made.push(path);
        return device;
      }
      case 'block-device': {
        const device = await this.#openDevice(path, { locked: true });
        this.#opened.push(device);
        if (device.size < size) {
          throw new VarveError('SIZE_BAD', `${path} has ${device.size} bytes, ${size} are needed`);
        }
        await needBlank(device, size, progress);
        return new BlankDevice(device, { offset: byteOffset(0), size, name: path });
      }
      case 'file':
        throw new VarveError('LOG_IN_USE', `${path} exists already`);
      case 'directory':
      case 'other':
        throw new VarveError('FILE_BAD', `${path} is neither a new file nor a block device`);
    }
  }

  /** @returns false, with nothing made, when the file system gives a file one name only */
  async #named(path: string, secondName: string, size: ByteCount): Promise<boolean> {
    const device = await this.#openDevice(secondName, { create: true, size }).catch(
      (error: unknown) => {
        if (!isVarveError(error)) throw error;
        throw new VarveError(error.code, `making ${path}: ${error.detail}`, { cause: error });
      },
    );
    this.#made.push(secondName);
    await device.close();
    const isLinked = await this.#files.link(secondName, path).catch(refuseUsed(path));
    if (isLinked) this.#made.push(path);
    else await this.#files.remove(secondName);
    return isLinked;
  }

  async close(): Promise<void> {
    for (const device of this.#opened.splice(0)) await device.close();
  }

  /** Makes a directory, unless it is there; its name is durable either way. */
  async directory(path: string): Promise<void> {
    const isThere = (await this.#files.kind(path)) !== 'none';
    await this.#files.createDirectory(path);
    if (!isThere) this.#made.push(path);
  }

  /**
   * Closes and removes all that was made, newest first; a directory that others use by now stays.
   * @returns files that could not be removed
   */
  async undo(): Promise<readonly string[]> {
    const left: string[] = [];
    await this.close();
    for (const path of this.#made.splice(0).reverse()) {
      try {
        await this.#files.remove(path);
      } catch (error) {
        if (!isVarveError(error)) throw error;
        if ((await this.#files.kind(path)) !== 'directory') left.push(path);
      }
    }
    return left;
  }
}

/** What came to be there since it was looked at is in use. */
function refuseUsed(path: string): (error: unknown) => never {
  return (error) => {
    if (!isVarveError(error, 'FILE_EXISTS')) throw error;
    throw new VarveError('LOG_IN_USE', `${path} exists already`);
  };
}

/**
 * Also the last bytes, beyond what is taken: partition tables and RAIDs have their second copy there.
 * @throws VarveError LOG_IN_USE, naming the first byte that is no zero
 */
async function needBlank(device: LowerDevice, size: ByteCount, progress: Progress): Promise<void> {
  const bytes = new Uint8Array(Math.min(READ_BYTES, device.size));
  const look = async (at: number): Promise<void> => {
    await device.read(byteOffset(at), bytes);
    if (isZero(bytes)) return;
    const first = at + bytes.findIndex((byte) => byte !== 0);
    throw new VarveError('LOG_IN_USE', `${device.name} holds data at byte ${first}`);
  };
  const last = device.size - bytes.length;
  await look(last);
  for (let at = 0; at < Math.min(size, last); at += bytes.length) {
    await look(at);
    progress(at, size);
  }
}

/** What was all zeros when it was looked at: nothing has to be done to make zeros of it. */
class BlankDevice extends SliceDevice {
  override async punch(): Promise<void> {
    // It would be written once more, for hours, where a device can't discard.
  }
}
