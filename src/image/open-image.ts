/**
 * Opens an image with all that it is based on.
 *
 * Invariants:
 *   - A format is said, never guessed: a guest that has a raw disk can write the header of another
 *     format into it, and name a file of the host there.
 *   - A chain ends: it is bounded, and no file is in it twice.
 */
import { dirname, resolve } from 'node:path';
import { VarveError } from '../base/errors.ts';
import { byteOffset } from '../base/units.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import {
  IMAGE_FORMATS,
  type BackingName,
  type BaseImage,
  type ImageFormat,
  type ImagePlugin,
} from './base-image.ts';
import { isQcow2 } from './qcow2-header.ts';
import { qcow2Plugin } from './qcow2-image.ts';
import { rawPlugin } from './raw-image.ts';

/** Files in one chain. */
const CHAIN_MAX = 64;

const PLUGINS: Readonly<Record<ImageFormat, ImagePlugin>> = {
  raw: rawPlugin,
  qcow2: qcow2Plugin,
};

/** As qemu tells a protocol from a path. */
const PROTOCOL = /^[^/]*:/;

function backingPath(image: string, { name }: BackingName): string {
  const local = name.startsWith('file:') ? name.slice('file:'.length) : name;
  if (PROTOCOL.test(local)) {
    throw new VarveError('IMAGE_UNSUPPORTED', `${image} is based on "${name}", which is no file`);
  }
  return resolve(dirname(image), local);
}

function backingFormat(image: string, { name, format }: BackingName): ImageFormat {
  const known = IMAGE_FORMATS.find((one) => one === format);
  if (known !== undefined) return known;
  if (format !== undefined) {
    throw new VarveError('IMAGE_UNSUPPORTED', `${image} is based on "${name}", a ${format} image`);
  }
  const say = 'say it by `qemu-img rebase -u -F FORMAT -b BACKING IMAGE`';
  const why = `${image} is based on "${name}", and does not say of which format that is; ${say}`;
  throw new VarveError('IMAGE_UNSUPPORTED', why);
}

async function openInChain(
  openDevice: OpenDevice,
  { path, format }: { readonly path: string; readonly format: ImageFormat },
  chain: readonly string[],
): Promise<BaseImage> {
  if (chain.includes(path)) {
    throw new VarveError('IMAGE_CORRUPT', `${path} is based on itself: ${chain.join(', ')}`);
  }
  if (chain.length >= CHAIN_MAX) {
    throw new VarveError('IMAGE_UNSUPPORTED', `${chain[0]} is based on over ${CHAIN_MAX} files`);
  }
  const device = await openDevice(path, { readOnly: true, exclusiveBlockDevice: false });
  try {
    return await PLUGINS[format].open(device, (backing) => {
      const below = { path: backingPath(path, backing), format: backingFormat(path, backing) };
      return openInChain(openDevice, below, [...chain, path]);
    });
  } catch (error) {
    await device.close();
    throw error;
  }
}

/**
 * @param path - absolute
 * @throws VarveError FILE_BAD, PERMISSION, IMAGE_CORRUPT, IMAGE_UNSUPPORTED, DEVICE_IO
 */
export function openImage(
  openDevice: OpenDevice,
  path: string,
  format: ImageFormat,
): Promise<BaseImage> {
  return openInChain(openDevice, { path, format }, []);
}

/**
 * What a file looks like. Only for whoever knows where it comes from: see above.
 * @param path - absolute
 */
export async function probeImage(openDevice: OpenDevice, path: string): Promise<ImageFormat> {
  const device = await openDevice(path, { readOnly: true, exclusiveBlockDevice: false });
  try {
    const first = new Uint8Array(Math.min(4, device.size));
    await device.read(byteOffset(0), first);
    return isQcow2(first) ? 'qcow2' : 'raw';
  } finally {
    await device.close();
  }
}
