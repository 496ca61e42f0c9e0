/**
 * Copies a moment out to an image file, which has its name only when it is whole, and goes on with
 * one that was interrupted.
 *
 * Invariants:
 *   - `FILE` is replaced in one step, by what is whole and durable.
 *   - One process at a time writes a part: it is locked, and renamed under the lock. What is gone on
 *     with is what was looked at before: its note is read again under the lock.
 *   - A part that goes on has all the bytes that its note tells of: a shorter one is refused.
 *   - After a failed sync nothing is noted any more: the note before it stands.
 */
import { basename } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { isVarveError, VarveError } from '../base/errors.ts';
import { byteCount, byteOffset, mebibytes, type ByteCount } from '../base/units.ts';
import { mergedRanges, UnreadableError, type UnreadableRange } from '../base/unreadable.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { LowerDevice, OpenDevice, OpenDeviceOptions } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import { RawWriter, type ImageWriter } from '../image/image-writer.ts';
import { qcow2BytesMax, qcow2BytesMin, Qcow2Writer } from '../image/qcow2-writer.ts';
import type { Progress } from '../volume/report.ts';
import {
  noteText,
  parseNote,
  partPaths,
  type MomentIdentity,
  type PartNote,
  type PartPaths,
} from './export-part.ts';
import { windowsOf } from './export-windows.ts';

/** So much is copied again at most, after a kill or a power cut. */
const NOTED_EACH_BYTES: ByteCount = mebibytes(256);

export interface ExportJob {
  readonly device: BlockDevice;
  /** Absolute. */
  readonly file: string;
  /** What this export is; its `done` is where it goes on, 0 for a new one. */
  readonly note: PartNote;
  /** What can't be read is left as zeros, and named; else the copy ends there. */
  readonly keepGoing: boolean;
  /** A file of that name is replaced, also one that came to be meanwhile. */
  readonly replaces: boolean;
  readonly progress: Progress;
  /** Default: 256 MiB. */
  readonly notedEachBytes?: ByteCount;
}

export interface Exported {
  /** Bytes written as data. */
  readonly dataBytes: ByteCount;
  /** Ascending, apart from each other. */
  readonly unreadable: readonly UnreadableRange[];
}

export interface ExportPorts {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
}

/** The note of an export that has copied nothing yet. */
export function firstNote(
  identity: MomentIdentity,
  more: Pick<PartNote, 'asked' | 'canonicalName' | 'format'>,
): PartNote {
  const { uuid, lineage, generation, size } = identity;
  const nothing = { fileEnd: byteOffset(0), table: byteOffset(0) };
  const none = { done: byteOffset(0), place: nothing, dataBytes: byteCount(0), unreadable: [] };
  return { ...more, uuid, lineage, generation, size, ...none };
}

function partOptions({ format, size, place }: PartNote): OpenDeviceOptions {
  if (format === 'raw') return { size, locked: true };
  // A shorter one was cut off: what is gone would be zeros, in an image that passes for whole.
  const sizeMin = qcow2BytesMin(size, place);
  return { size: qcow2BytesMax(size), grows: true, sizeMin, locked: true };
}

/** @param note - with `done` 0 only for a part that is new */
async function writerOf(part: LowerDevice, note: PartNote): Promise<ImageWriter> {
  if (note.format === 'raw') return new RawWriter(part);
  if (note.done === 0) return Qcow2Writer.start(part, note.size);
  return Qcow2Writer.resume(part, note.size, note);
}

class Exporter {
  readonly #ports: ExportPorts;
  readonly #job: ExportJob;
  readonly #notePath: string;
  readonly #part: LowerDevice;
  readonly #writer: ImageWriter;
  /** What is written; the part of it that is noted is durable. */
  #now: PartNote;
  #noted: PartNote;
  #isTrusted = true;

  constructor(
    ports: ExportPorts,
    job: ExportJob,
    { part, writer, notePath }: { part: LowerDevice; writer: ImageWriter; notePath: string },
  ) {
    this.#ports = ports;
    this.#job = job;
    this.#part = part;
    this.#writer = writer;
    this.#notePath = notePath;
    this.#now = job.note;
    this.#noted = job.note;
  }

  get noted(): PartNote {
    return this.#noted;
  }

  async run(): Promise<Exported> {
    const { device, progress, notedEachBytes = NOTED_EACH_BYTES } = this.#job;
    for await (const window of windowsOf(device, this.#now.done)) {
      const unreadable = this.#checked(window.unreadable);
      const written = await this.#writer.put(window);
      this.#now = {
        ...this.#now,
        done: byteOffset(window.offset + window.length),
        dataBytes: byteCount(this.#now.dataBytes + written),
      };
      if (unreadable.length > 0) {
        const all = mergedRanges([...this.#now.unreadable, ...unreadable]);
        this.#now = { ...this.#now, unreadable: all };
      }
      if (this.#now.dataBytes - this.#noted.dataBytes >= notedEachBytes) await this.save();
      progress(byteCount(this.#now.done), device.size);
    }
    await this.save();
    this.#isTrusted = false;
    await this.#writer.finish();
    return { dataBytes: this.#now.dataBytes, unreadable: this.#now.unreadable };
  }

  /** Notes how far it is, unless what was written can't be trusted. */
  async save(): Promise<void> {
    if (!this.#isTrusted || this.#now.done === this.#noted.done) return;
    // Not before the note is written: neither a failed sync nor a failed flush is tried again.
    this.#isTrusted = false;
    const place = await this.#writer.flush(this.#now.done);
    await this.#part.sync('export');
    const note = { ...this.#now, place };
    await this.#ports.files.writeAtomically(this.#notePath, noteText(note));
    this.#noted = note;
    this.#isTrusted = true;
  }

  #checked(unreadable: readonly UnreadableRange[]): readonly UnreadableRange[] {
    const [first] = unreadable;
    if (first === undefined || this.#job.keepGoing) return unreadable;
    const why = `at byte ${first.offset}, ${first.length} bytes: ${first.why}`;
    throw new UnreadableError('BLOCK_CORRUPT', [{ ...first, why }]);
  }
}

/** Keeps what is durable, and says so; or removes a part that has nothing. */
async function afterFailure(
  error: unknown,
  { exporter, ports, file }: { exporter: Exporter; ports: ExportPorts; file: string },
): Promise<never> {
  try {
    await exporter.save();
  } catch {
    // The note before it stands; what went wrong first is told.
  }
  const { part, note } = partPaths(file);
  const { done, size } = exporter.noted;
  if (done === 0) {
    await ports.files.remove(part);
    await ports.files.remove(note);
    throw error;
  }
  if (!(error instanceof VarveError)) throw error;
  const kept = `${part} keeps ${done} of ${size} bytes: the same command with --resume goes on`;
  const next = isVarveError(error, 'INTERRUPTED') ? 'the same command with --resume' : undefined;
  throw new VarveError(error.code, `${error.detail}; ${kept}`, { cause: error, next });
}

/** Another export may have gone on with the part, or begun its own, after the note was read. */
async function resumePart(
  { files, openDevice }: ExportPorts,
  paths: PartPaths,
  note: PartNote,
): Promise<LowerDevice> {
  const part = await openDevice(paths.part, partOptions(note));
  try {
    const source = await files.readText(paths.note);
    if (source !== undefined && isDeepStrictEqual(parseNote(source, paths.note), note)) return part;
    const next = 'the same command again: it looks at what is there now';
    throw new VarveError('FILE_IN_USE', `${paths.part} was, until now`, { next });
  } catch (error) {
    await part.close();
    throw error;
  }
}

/** A part that goes on, or a new one; one that stands there has nothing that is wanted then. */
async function openPart(
  { files, openDevice }: ExportPorts,
  paths: PartPaths,
  note: PartNote,
): Promise<LowerDevice> {
  if (note.done > 0) return resumePart({ files, openDevice }, paths, note);
  if ((await files.kind(paths.part)) !== 'none') {
    // Locked, so that it is no part that another process is writing.
    const old = await openDevice(paths.part, { locked: true });
    try {
      await files.remove(paths.part);
    } finally {
      await old.close();
    }
  }
  await files.writeAtomically(paths.note, noteText(note));
  try {
    return await openDevice(paths.part, { ...partOptions(note), create: true });
  } catch (error) {
    // The note is another one's when the part is.
    const isTheirs = isVarveError(error, 'FILE_EXISTS') || isVarveError(error, 'FILE_IN_USE');
    if (!isTheirs) await files.remove(paths.note);
    throw error;
  }
}

/** What was written meanwhile by somebody else is not replaced unasked; all of the part is kept. */
async function giveName({ files }: ExportPorts, { file, replaces }: ExportJob): Promise<void> {
  const paths = partPaths(file);
  if (!replaces && (await files.kind(file)) !== 'none') {
    const next = 'the same command with --resume --force replaces it at once';
    const whole = `${file} came to be meanwhile; ${paths.part} is whole`;
    throw new VarveError('FILE_EXISTS', whole, { next });
  }
  await files.rename(paths.part, basename(file));
  await files.remove(paths.note);
}

/**
 * @returns when `job.file` is there, whole and durable
 * @throws VarveError FILE_IN_USE, FILE_EXISTS; whatever reading the device or writing the file
 *   throws, in which case what was copied is kept for the next call
 */
export async function exportImage(ports: ExportPorts, job: ExportJob): Promise<Exported> {
  const { file, note: begun } = job;
  const paths = partPaths(file);
  const part = await openPart(ports, paths, begun);
  try {
    const writer = await writerOf(part, begun);
    const exporter = new Exporter(ports, job, { part, writer, notePath: paths.note });
    let done: Exported;
    try {
      done = await exporter.run();
    } catch (error) {
      return await afterFailure(error, { exporter, ports, file });
    }
    await giveName(ports, job);
    return done;
  } finally {
    await part.close();
  }
}
