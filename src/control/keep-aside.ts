/**
 * Bytes that recovery is about to erase, kept as files beside a volume.
 *
 * Invariants:
 *   - A file of a final name is whole and durable: what a crash ends has a temporary name, and the
 *     next one of that name replaces it.
 *   - What is kept is never replaced by other bytes: those get a name with a number.
 */
import { join } from 'node:path';
import { isVarveError } from '../base/errors.ts';
import { byteCount, byteOffset } from '../base/units.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';

/** The outside world, as far as files are kept there. */
export interface Shelf {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
}

/** `cut-7-at-4096.bin`, then `cut-7-at-4096.2.bin` and so on. */
function numbered(name: string, number: number): string {
  if (number === 1) return name;
  const dot = name.lastIndexOf('.');
  return dot < 0 ? `${name}.${number}` : `${name.slice(0, dot)}.${number}${name.slice(dot)}`;
}

/**
 * Settles when the folder has a file of these bytes, under `name` or, where that is of others, under
 * one with a number; an opening that a crash ended has kept the same ones already.
 * @throws VarveError DISK_FULL, PERMISSION, DEVICE_IO; no final name is of a part then
 */
export async function keepAside(
  { files, openDevice }: Shelf,
  folder: string,
  { name, bytes }: { readonly name: string; readonly bytes: Uint8Array },
): Promise<void> {
  let number = 1;
  let free = name;
  while ((await files.kind(join(folder, free))) !== 'none') {
    if (await holds(openDevice, join(folder, free), bytes)) {
      // A process that was killed may have left the name to the page cache alone.
      await files.syncNames(folder);
      return;
    }
    number += 1;
    free = numbered(name, number);
  }
  const temporary = join(folder, `.${name}.part`);
  await files.remove(temporary);
  try {
    const device = await openDevice(temporary, { size: byteCount(bytes.length), create: true });
    try {
      await device.write(byteOffset(0), [bytes]);
      await device.sync('recovery');
    } finally {
      await device.close();
    }
    await files.rename(temporary, free);
  } catch (error) {
    await files.remove(temporary).catch((reason: unknown) => {
      // It stays for the next one of that name; why there is none now is told before that.
      if (!isVarveError(reason)) throw reason;
    });
    throw error;
  }
}

/** Whether the file has just these bytes; one that can not be read has others. */
async function holds(openDevice: OpenDevice, path: string, bytes: Uint8Array): Promise<boolean> {
  try {
    const device = await openDevice(path, { readOnly: true });
    try {
      if (device.size !== bytes.length) return false;
      const found = new Uint8Array(bytes.length);
      await device.read(byteOffset(0), found);
      return Buffer.compare(found, bytes) === 0;
    } finally {
      await device.close();
    }
  } catch (error) {
    if (isVarveError(error)) return false;
    throw error;
  }
}
