/** What a volume is based on, as its volume.json names it: an image file, or a moment of a volume. */
import { isAbsolute } from 'node:path';
import type { Uuid } from '../base/identity.ts';
import { byteCount, generation, type ByteCount, type Generation } from '../base/units.ts';
import { IMAGE_FORMATS, type ImageFormat } from '../image/base-image.ts';
import { fields, flag, list, oneOf, optional, text, unit, uuid, type Shape } from './shape.ts';

interface AnyBase {
  /** Of the disk in it. */
  readonly size: ByteCount;
  /** Its blocks are being copied into the volume, which then has no base any more. */
  readonly isCopied: boolean;
}

/** An image that is only read. */
export interface FileBase extends AnyBase {
  readonly kind: 'file';
  /** Relative to the volume's folder, or absolute. */
  readonly path: string;
  readonly format: ImageFormat;
  /** CRC32C of pieces of the disk in it, spread over all of it. */
  readonly looks: readonly number[];
}

/** A snapshot of another volume of the directory. */
export interface VolumeBase extends AnyBase {
  readonly kind: 'volume';
  readonly name: string;
  readonly uuid: Uuid;
  readonly snapshot: string;
  readonly generation: Generation;
  readonly lineage: Uuid;
}

export type BaseRecord = FileBase | VolumeBase;

const ANY = { size: unit(byteCount), isCopied: flag };
const kindShape = fields({ kind: oneOf(['file', 'volume'] as const) });
const fileShape = fields({
  ...ANY,
  path: text,
  format: oneOf(IMAGE_FORMATS),
  looks: list(unit(Number)),
});
const volumeShape = fields({
  ...ANY,
  name: text,
  uuid,
  snapshot: text,
  generation: unit(generation),
  lineage: uuid,
});

const someBaseShape: Shape<BaseRecord> = (value, place) => {
  const { kind } = kindShape(value, place);
  return kind === 'file'
    ? { kind, ...fileShape(value, place) }
    : { kind, ...volumeShape(value, place) };
};

export const baseShape: Shape<BaseRecord | undefined> = optional(someBaseShape);

/** For people. */
export function baseText(base: BaseRecord): string {
  if (base.kind === 'volume') return `${base.name}@${base.snapshot}`;
  const where = isAbsolute(base.path) ? base.path : `./${base.path}`;
  return `${where} (${base.format})`;
}
