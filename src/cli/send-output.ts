/** Where `varve send` writes: a file, what else has a path, or standard output. */
import { constants, open as openFile, realpath, type FileHandle } from 'node:fs/promises';
import { VarveError } from '../base/errors.ts';
import type { WriteStream } from '../control/stream-file.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';
import { sayError } from './output.ts';
import type { Tools } from './tools.ts';

/** Who reads has gone, and lacks the rest: that is a failure, unlike with a list. */
function readerGone(error: unknown): VarveError {
  const next = 'look at what `varve receive` said';
  return new VarveError('STREAM_CUT', 'its reader has gone', { next, cause: error });
}

/** Pipes and most devices of characters have nothing to sync. */
async function syncIfAny(file: FileHandle): Promise<void> {
  try {
    await file.sync();
  } catch (error) {
    if (systemCode(error) !== 'EINVAL') throw error;
  }
}

/** A pipe or a device: it was there before, and stays. */
async function intoNode<T>(path: string, work: (write: WriteStream) => Promise<T>): Promise<T> {
  try {
    const file = await openFile(path, constants.O_WRONLY);
    try {
      const result = await work((bytes) => file.writeFile(bytes));
      await syncIfAny(file);
      return result;
    } finally {
      await file.close();
    }
  } catch (error) {
    if (systemCode(error) === 'EPIPE') throw readerGone(error);
    throw fromSystemError(error, `writing ${path}`);
  }
}

/**
 * @param path - absolute
 * @throws VarveError FILE_EXISTS and what writing throws; a file that was there is what it was then
 */
export async function intoPath<T>(
  tools: Tools,
  { path, force }: { readonly path: string; readonly force: boolean },
  work: (write: WriteStream) => Promise<T>,
): Promise<T> {
  const kind = await tools.files.kind(path);
  if (kind === 'directory') throw new VarveError('FILE_BAD', `${path} is a directory`);
  if (kind !== 'none' && !force) throw new VarveError('FILE_EXISTS', path);
  if (kind === 'block-device' || kind === 'other') return await intoNode(path, work);
  const { writeStreamFile } = await import('../control/stream-file.ts');
  // The file that a link leads to is replaced, not the link.
  const file = kind === 'file' ? await realpath(path) : path;
  return await writeStreamFile(tools, { file, replaces: force }, work);
}

export async function toStandardOutput<T>(
  isJson: boolean,
  work: (write: WriteStream) => Promise<T>,
): Promise<T> {
  if (process.stdout.isTTY) {
    throw new VarveError('USAGE', 'a stream is not for a terminal: give --output, or a pipe');
  }
  process.stdout.prependListener('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(sayError(readerGone(error), isJson));
  });
  return await work(
    (bytes) =>
      new Promise((done, failed) => {
        process.stdout.write(bytes, (error) => {
          if (error) failed(error);
          else done();
        });
      }),
  );
}
