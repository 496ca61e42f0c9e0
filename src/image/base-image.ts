/**
 * The port to a disk image that is only read: a plugin for each format makes one of these.
 *
 * Promises of every implementation:
 *   - Bytes of an image are taken for nothing but bytes: damage is an error with a code, never a
 *     crash, an endless loop, or memory that grows with what the image claims.
 *   - Nothing is written.
 */
import type { ByteCount, ByteOffset } from '../base/units.ts';
import type { StatusRun } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';

export const IMAGE_FORMATS = ['raw', 'qcow2'] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

export interface BaseImage {
  readonly format: ImageFormat;
  /** Of the disk in it. */
  readonly size: ByteCount;
  /** Paths of what it is read from: the image, then what it is based on, one after the other. */
  readonly files: readonly string[];
  /**
   * Fills `target`, which lies inside the disk; any alignment; borrowed until it settles.
   * @throws VarveError IMAGE_CORRUPT, DEVICE_IO
   */
  read(offset: ByteOffset, target: Uint8Array): Promise<void>;
  /**
   * What is known of a range without reading it: STATE_HOLE and STATE_ZERO, as base:allocation has
   * them. Covers at least one byte, at most `length`, at most `runsMax` runs.
   * @throws VarveError IMAGE_CORRUPT, DEVICE_IO
   */
  extents(offset: ByteOffset, length: ByteCount, runsMax: number): Promise<readonly StatusRun[]>;
  /** Ends all use, of the files below as well; idempotent. */
  close(): Promise<void>;
}

/** What an image is based on, as it says itself. */
export interface BackingName {
  readonly name: string;
  /** Undefined: not said. */
  readonly format: string | undefined;
}

export interface ImagePlugin {
  /**
   * @param device - becomes the image's, which closes it; of a failed opening the caller closes it
   * @param openBacking - opens what the image is based on
   */
  open(
    device: LowerDevice,
    openBacking: (backing: BackingName) => Promise<BaseImage>,
  ): Promise<BaseImage>;
}
