/**
 * Raw devices that volumes of a directory have, or are being made on.
 *
 * A volume that wrote little has all of it in its log: its final storage is blank then, and only a
 * record tells whose it is.
 */
import { join } from 'node:path';
import { isVarveError, VarveError } from '../base/errors.ts';
import type { MetaFiles } from '../device/meta-files.ts';
import {
  RECORD_FILE,
  UNFINISHED_FILE,
  isVolumeName,
  parseRecord,
  pathOf,
  type VolumeRecord,
} from './volume-record.ts';

/**
 * The caller's own record is written already: of two creations at once at least one finds the other.
 * @param directory - of the volumes; `own` is the one that is being made
 * @throws VarveError LOG_IN_USE, naming the volume
 */
export async function needUnusedDevices(
  files: MetaFiles,
  directory: string,
  { own, record }: { readonly own: string; readonly record: VolumeRecord },
): Promise<void> {
  const wanted: string[] = [];
  for (const path of [record.log, record.final]) {
    if ((await files.kind(pathOf(join(directory, own), path))) === 'block-device')
      wanted.push(path);
  }
  if (wanted.length === 0) return;
  for (const name of (await files.list(directory)).filter(isVolumeName)) {
    if (name === own) continue;
    const folder = join(directory, name);
    for (const [use, path] of await usedBy(files, folder)) {
      for (const device of wanted) {
        if (!(await files.isSameDevice(device, path))) continue;
        throw new VarveError('LOG_IN_USE', `${device} is the ${use} of volume "${name}"`, {
          next: `give another device; once nobody needs that volume, remove ${folder} first`,
        });
      }
    }
  }
}

/** By its record, finished or not; nothing of one that can't be read. */
async function usedBy(
  files: MetaFiles,
  folder: string,
): Promise<readonly (readonly [use: string, path: string])[]> {
  for (const file of [RECORD_FILE, UNFINISHED_FILE]) {
    try {
      const source = await files.readText(join(folder, file));
      if (source === undefined) continue;
      const { log, final, base } = parseRecord(source, file);
      const used: [string, string][] = [
        ['log', pathOf(folder, log)],
        ['final storage', pathOf(folder, final)],
      ];
      if (base?.kind === 'file') used.push(['base', pathOf(folder, base.path)]);
      return used;
    } catch (error) {
      if (!isVarveError(error)) throw error;
    }
  }
  return [];
}
