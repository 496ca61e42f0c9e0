/**
 * A stream of `varve send` as a file, which has its name only when it is whole.
 *
 * Invariants:
 *   - `FILE` is replaced in one step, by what is whole and durable; until then it is what it was.
 *   - What is removed was made by this run, or is proven to be a part that another one left: nobody
 *     has it locked, and it is empty or begins as a stream does.
 */
import { basename } from 'node:path';
import { isVarveError, VarveError } from '../base/errors.ts';
import { byteCount, byteOffset } from '../base/units.ts';
import type { LowerDevice, OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import { SEND_MAGIC } from '../format/send-layouts.ts';

/** How long a stream is shows only at its end. */
const STREAM_BYTES_MAX = byteCount(Number.MAX_SAFE_INTEGER);

export interface StreamFilePorts {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
}

export interface StreamFile {
  /** Absolute, and no link. */
  readonly file: string;
  /** A file of that name is replaced; else it is refused. */
  readonly replaces: boolean;
}

export type WriteStream = (bytes: Uint8Array) => Promise<void>;

/** The first bytes of a stream, or all that there is of them. */
export async function streamStart(device: LowerDevice): Promise<string> {
  const first = new Uint8Array(Math.min(SEND_MAGIC.length, device.size));
  await device.read(byteOffset(0), first);
  return Buffer.from(first).toString('latin1');
}

/** Removes what a run left that was killed. */
async function clearPart({ files, openDevice }: StreamFilePorts, part: string): Promise<void> {
  if ((await files.kind(part)) === 'none') return;
  const old = await openDevice(part, { locked: true });
  try {
    if (!SEND_MAGIC.startsWith(await streamStart(old))) {
      const next = 'move it away, or choose another path';
      throw new VarveError('PART_FOREIGN', `${part} begins no stream`, { next });
    }
    await files.remove(part);
  } finally {
    await old.close();
  }
}

async function openPart({ openDevice }: StreamFilePorts, part: string): Promise<LowerDevice> {
  try {
    return await openDevice(part, {
      create: true,
      size: STREAM_BYTES_MAX,
      grows: true,
      locked: true,
    });
  } catch (error) {
    if (!isVarveError(error, 'FILE_EXISTS')) throw error;
    throw new VarveError('FILE_IN_USE', part, { cause: error });
  }
}

async function needFree(files: MetaFiles, { file, replaces }: StreamFile): Promise<void> {
  if (!replaces && (await files.kind(file)) !== 'none') throw new VarveError('FILE_EXISTS', file);
}

/**
 * @param work - writes all of the stream, or fails
 * @throws VarveError FILE_EXISTS, FILE_IN_USE, PART_FOREIGN, and what `work` or writing throws; then
 *   `file` is what it was
 */
export async function writeStreamFile<T>(
  ports: StreamFilePorts,
  target: StreamFile,
  work: (write: WriteStream) => Promise<T>,
): Promise<T> {
  const { files } = ports;
  await needFree(files, target);
  const path = `${target.file}.part`;
  await clearPart(ports, path);
  const part = await openPart(ports, path);
  try {
    let length = 0;
    const result = await work(async (bytes) => {
      await part.write(byteOffset(length), [bytes]);
      // From here on it shows what it is, after a power cut too.
      if (length === 0) await part.sync('export');
      length += bytes.length;
    });
    await part.sync('export');
    // Hours may have passed.
    await needFree(files, target);
    await files.rename(path, basename(target.file));
    return result;
  } catch (error) {
    // What went wrong first is told; a part that stays is cleared away by the next run.
    await files.remove(path).catch(() => undefined);
    throw error;
  } finally {
    await part.close();
  }
}
