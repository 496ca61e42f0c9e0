/**
 * What an unfinished export left: `FILE.part`, the beginning of the image, and `FILE.part.json`, a
 * note of what it is of and how much of it is there, durable.
 *
 * Invariants:
 *   - The note is made before the part, and goes after the part has got its own name: a part
 *     without a note is nobody's of ours.
 *   - What the note tells of was synced before it was written.
 */
import { VarveError } from '../base/errors.ts';
import type { Uuid } from '../base/identity.ts';
import {
  byteCount,
  byteOffset,
  generation,
  type ByteCount,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import type { UnreadableRange } from '../base/unreadable.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import { WINDOW_BYTES, type ImagePlace } from '../image/image-writer.ts';
import { fields, list, oneOf, parseJson, ShapeError, text, unit, uuid } from './shape.ts';

export const EXPORT_FORMATS = ['raw', 'qcow2'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

const NOTE_FORMAT = 1;

/** A moment of a volume, wherever it is served; the same bytes for ever. */
export interface MomentIdentity {
  readonly uuid: Uuid;
  readonly lineage: Uuid;
  readonly generation: Generation;
  readonly size: ByteCount;
}

export interface PartNote extends MomentIdentity {
  /** What was asked for: `disk@-10m`. */
  readonly asked: string;
  /** What that was then: `disk@gen=7`. */
  readonly canonicalName: string;
  readonly format: ExportFormat;
  /** The disk is in the part up to here. */
  readonly done: ByteOffset;
  readonly place: ImagePlace;
  readonly dataBytes: ByteCount;
  readonly unreadable: readonly UnreadableRange[];
}

export interface PartPaths {
  readonly part: string;
  readonly note: string;
}

export function partPaths(file: string): PartPaths {
  return { part: `${file}.part`, note: `${file}.part.json` };
}

const formatShape = fields({ exportPart: unit(Number) });
const noteShape = fields({
  asked: text,
  canonicalName: text,
  uuid,
  lineage: text,
  generation: unit(generation),
  size: unit(byteCount),
  format: oneOf(EXPORT_FORMATS),
  done: unit(byteOffset),
  place: fields({ fileEnd: unit(byteOffset), table: unit(byteOffset) }),
  dataBytes: unit(byteCount),
  unreadable: list(fields({ offset: unit(byteOffset), length: unit(byteCount), why: text })),
});

export function noteText(note: PartNote): string {
  return `${JSON.stringify({ exportPart: NOTE_FORMAT, ...note }, null, 2)}\n`;
}

/** @throws VarveError PART_FOREIGN, VERSION_UNKNOWN */
export function parseNote(source: string, path: string): PartNote {
  try {
    const value = parseJson(source, 'the content');
    const { exportPart: format } = formatShape(value, '');
    if (format !== NOTE_FORMAT) {
      const both = `${path}: got ${format}, this build knows ${NOTE_FORMAT}`;
      throw new VarveError('VERSION_UNKNOWN', both);
    }
    const note = noteShape(value, '');
    const end = byteOffset(note.size);
    const isPlace = note.done % WINDOW_BYTES === 0 || note.done === end;
    if (!isPlace || note.done > end) throw new ShapeError('done', 'a place on the disk');
    return note;
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new VarveError('PART_FOREIGN', `${path}: ${error.message}`, { cause: error });
  }
}

/**
 * @returns undefined when no unfinished export is there
 * @throws VarveError PART_FOREIGN for a part that has no note
 */
export async function findPart(files: MetaFiles, paths: PartPaths): Promise<PartNote | undefined> {
  const source = await files.readText(paths.note);
  if ((await files.kind(paths.part)) === 'none') return undefined;
  if (source !== undefined) return parseNote(source, paths.note);
  throw new VarveError('PART_FOREIGN', `${paths.part} has no note of an export; move it away`);
}

/** @throws VarveError PART_FOREIGN, saying what the part is of */
export function needSame(
  note: PartNote,
  wanted: MomentIdentity & { readonly format: ExportFormat },
  path: string,
): void {
  const is = `${path} was begun by: varve export ${note.asked} --format ${note.format}`;
  const refuse = (why: string): never => {
    throw new VarveError('PART_FOREIGN', `${is}; ${why}`);
  };
  if (note.format !== wanted.format) refuse(`asked for ${wanted.format}`);
  if (note.uuid !== wanted.uuid) refuse('that was another volume');
  if (note.generation !== wanted.generation) {
    refuse(`it is ${note.canonicalName}, generation ${note.generation}, not ${wanted.generation}`);
  }
  if (note.lineage !== wanted.lineage) {
    refuse(`what was generation ${note.generation} then was lost, and another one has its number`);
  }
  if (note.size !== wanted.size) refuse(`that disk had ${note.size} bytes, not ${wanted.size}`);
}
