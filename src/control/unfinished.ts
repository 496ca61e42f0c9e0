/**
 * What a creation that a crash ended has left, and whose it is.
 *
 * A file outside the volume's folder has, while it is being made, a second name beside it that no
 * other file has, with the volume's uuid. The record of the creation is written before either name,
 * so what has the second name is of that creation, and so is what is one file with it, under
 * whatever name.
 *
 * Invariants:
 *   - A file outside the folder is removed only under its second name, or when it is one file with
 *     it and has the size that the record tells.
 *   - A block device has no second name, and is left alone.
 */
import { dirname, join } from 'node:path';
import { isVarveError } from '../base/errors.ts';
import type { ByteCount } from '../base/units.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import { finalBytes } from '../volume/devices.ts';
import {
  FINAL_FILE,
  LOCK_FILE,
  LOG_FILE,
  SUMS_FILE,
  UNDO_FILE,
  UNFINISHED_FILE,
  parseRecord,
  pathOf,
  type VolumeRecord,
} from './volume-record.ts';

/** What a folder may hold when a creation has come as far as its lock, */
const BEGUN_NAMES: readonly string[] = [LOCK_FILE, `.${UNFINISHED_FILE}.new`];
/** and until it is done. */
const UNFINISHED_NAMES: readonly string[] = [
  ...BEGUN_NAMES,
  LOG_FILE,
  FINAL_FILE,
  SUMS_FILE,
  UNDO_FILE,
  UNFINISHED_FILE,
];

/** A file of a volume that is outside its folder. */
interface OutsideFile {
  readonly path: string;
  readonly secondName: string;
  readonly size: ByteCount;
}

interface Around {
  readonly files: MetaFiles;
  readonly openDevice: OpenDevice;
}

/**
 * @param path - of a file of the volume
 * @returns undefined for one in the volume's folder: what is there is the volume's anyway
 */
export function secondNameOf(
  folder: string,
  path: string,
  { uuid, part }: { readonly uuid: string; readonly part: 'log' | 'final' },
): string | undefined {
  const parent = dirname(path);
  return parent === folder ? undefined : join(parent, `.varve-${uuid}-${part}.unfinished`);
}

/** Names in the folder of a volume that is not there which no creation has left. */
export function foreignNames(names: readonly string[]): readonly string[] {
  const known = names.includes(UNFINISHED_FILE) ? UNFINISHED_NAMES : BEGUN_NAMES;
  return names.filter((name) => !known.includes(name));
}

/**
 * Removes what a creation left that a crash ended: its record last, as that says whose it is. The
 * caller has the folder's lock.
 */
export async function clearUnfinished(around: Around, folder: string): Promise<void> {
  const { files } = around;
  const names = await files.list(folder);
  for (const file of await outsideFiles(files, folder)) {
    if ((await files.kind(file.secondName)) !== 'file') continue;
    if (await isOwn(around, file)) await files.remove(file.path);
    await files.remove(file.secondName);
  }
  for (const name of UNFINISHED_NAMES) {
    if (name === LOCK_FILE || !names.includes(name)) continue;
    await files.remove(join(folder, name));
  }
}

/**
 * Takes second names away from a volume that is whole. One that can't be removed costs nothing, and
 * is taken away by the next opening.
 */
export async function dropSecondNames(
  files: MetaFiles,
  folder: string,
  record: VolumeRecord,
): Promise<void> {
  for (const { path, secondName } of outside(folder, record)) {
    try {
      if (await files.isSame(path, secondName)) await files.remove(secondName);
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }
}

function outside(folder: string, record: VolumeRecord): readonly OutsideFile[] {
  const { uuid, logSize, size } = record;
  const found: OutsideFile[] = [];
  const add = (stored: string, part: 'log' | 'final', bytes: ByteCount): void => {
    const path = pathOf(folder, stored);
    const secondName = secondNameOf(folder, path, { uuid, part });
    if (secondName !== undefined) found.push({ path, secondName, size: bytes });
  };
  add(record.log, 'log', logSize);
  add(record.final, 'final', finalBytes(size));
  return found;
}

/** By the record of the creation; none when that can not be read. */
async function outsideFiles(files: MetaFiles, folder: string): Promise<readonly OutsideFile[]> {
  const path = join(folder, UNFINISHED_FILE);
  const source = await files.readText(path);
  if (source === undefined) return [];
  try {
    return outside(folder, parseRecord(source, path));
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return [];
  }
}

/** Whether the path is of the file that the creation made, and nobody has given it another size. */
async function isOwn({ files, openDevice }: Around, file: OutsideFile): Promise<boolean> {
  if (!(await files.isSame(file.path, file.secondName))) return false;
  try {
    const device = await openDevice(file.secondName, { size: file.size, readOnly: true });
    await device.close();
    return true;
  } catch (error) {
    if (isVarveError(error, 'VOLUME_FOREIGN')) return false;
    throw error;
  }
}
