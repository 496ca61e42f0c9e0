/**
 * Opening what a volume is based on, when that is an image: the file and what it is based on itself,
 * only read.
 *
 * Invariant: an image is taken for the base only if it is of the size that it had, and holds the same
 * where it is looked at: at both ends and at places spread over it. Nobody compares all of it. A place
 * that can't be read says nothing: its blocks are refused when somebody reads them.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import { crc32c } from '../base/crc32c.ts';
import { BLOCK_BYTES, byteOffset } from '../base/units.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import type { BaseImage, ImageFormat } from '../image/base-image.ts';
import { openImage } from '../image/open-image.ts';
import type { BaseDisk } from '../volume/base-disk.ts';
import type { FileBase } from './base-record.ts';
import { pathOf } from './volume-record.ts';

const LOOKS = 64;

/** What a volume is based on, open. */
export interface OpenedBase {
  readonly disk: BaseDisk;
  close(): Promise<void>;
}

interface Around {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
}

/** Checksum of one of `count` pieces of the disk, the same for every format that it may be in. */
async function lookAt(image: BaseImage, i: number, count: number): Promise<number> {
  const bytes = new Uint8Array(Math.min(BLOCK_BYTES, image.size));
  const step = (image.size - bytes.length) / (count - 1);
  await image.read(byteOffset(Math.floor(i * step)), bytes);
  return crc32c(bytes);
}

/** @throws VarveError BASE_CHANGED; as a read when nothing can be read */
async function compare(image: BaseImage, { path, looks }: FileBase): Promise<void> {
  if (looks.length !== LOOKS) throw new VarveError('VOLUME_FOREIGN', `${looks.length} looks`);
  let refusal: VarveError | undefined;
  let seen = 0;
  for (const [i, look] of looks.entries()) {
    try {
      if ((await lookAt(image, i, looks.length)) !== look) {
        throw new VarveError('BASE_CHANGED', `${path} holds something else than it did`);
      }
      seen += 1;
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO') && !isVarveError(error, 'IMAGE_CORRUPT')) throw error;
      refusal ??= error;
    }
  }
  if (seen === 0 && refusal !== undefined) throw refusal;
}

async function openFile(
  { files, openDevice }: Around,
  path: string,
  format: ImageFormat,
): Promise<BaseImage> {
  if ((await files.kind(path)) === 'none') throw new VarveError('BASE_MISSING', path);
  return await openImage(openDevice, path, format);
}

/**
 * What a volume's record says of a new base.
 * @param path - absolute
 * @throws VarveError BASE_MISSING, FILE_BAD, PERMISSION, IMAGE_*, DEVICE_IO
 */
export async function planBase(
  around: Around,
  { path, format }: { readonly path: string; readonly format: ImageFormat },
): Promise<FileBase> {
  if ((await around.files.kind(path)) === 'none') {
    throw new VarveError('BASE_MISSING', path, { next: 'check the path of --base' });
  }
  const image = await openFile(around, path, format);
  try {
    if (image.size === 0) throw new VarveError('FILE_BAD', `${path} is empty`);
    const looks: number[] = [];
    for (let i = 0; i < LOOKS; i++) looks.push(await lookAt(image, i, LOOKS));
    return { kind: 'file', path, format, size: image.size, looks, isCopied: false };
  } finally {
    await image.close();
  }
}

/**
 * @param folder - of the volume
 * @throws VarveError BASE_MISSING, BASE_CHANGED, FILE_BAD, PERMISSION, IMAGE_*, DEVICE_IO
 */
export async function openFileBase(
  around: Around,
  folder: string,
  base: FileBase,
): Promise<OpenedBase> {
  const path = pathOf(folder, base.path);
  const image = await openFile(around, path, base.format);
  try {
    if (image.size !== base.size) {
      const both = `got ${image.size} bytes, expected ${base.size}`;
      throw new VarveError('BASE_CHANGED', `${path}: ${both}`);
    }
    await compare(image, { ...base, path });
  } catch (error) {
    await image.close();
    throw error;
  }
  return { disk: image, close: () => image.close() };
}
