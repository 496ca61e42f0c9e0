/**
 * The exports of a directory: `VOLUME`, `VOLUME@MOMENT`, and the empty name for the only volume.
 *
 * Invariant: a name that may mean different content to two connections is never offered as safe
 * for several of them.
 */
import { VarveError } from '../base/errors.ts';
import type { ExportDirectory, ExportListing, OpenExport } from '../device/block-device.ts';
import { timeText } from '../volume/moment.ts';
import { snapshotsInOrder } from '../volume/snapshot-info.ts';
import type { Volume } from '../volume/volume.ts';
import { momentText } from './moment-text.ts';
import { sizeText } from './size-text.ts';

export interface ExportName {
  readonly volume: string;
  readonly moment: string | undefined;
}

export function parseExportName(name: string): ExportName {
  const at = name.indexOf('@');
  if (at < 0) return { volume: name, moment: undefined };
  return { volume: name.slice(0, at), moment: name.slice(at + 1) };
}

/** @throws VarveError MOMENT_* */
export async function openExport(volume: Volume, moment: string | undefined): Promise<OpenExport> {
  const size = sizeText(volume.size);
  const fixContext = (context: string): string => volume.fixedContext(context);
  if (moment === undefined) {
    const { lineage } = volume.core;
    const { device, onRevoke } = volume.openLive();
    return {
      device,
      onRevoke,
      canonicalName: volume.name,
      description: `${volume.name}, ${size}, the live disk; lineage ${lineage}`,
      multipleConnections: true,
      fixContext,
    };
  }
  const resolved = await volume.resolve(moment);
  const { generation, lineage, wallUs, stable } = resolved;
  return {
    device: volume.openMoment(resolved),
    // A snapshot's name stays true, and is what people look for in a list.
    canonicalName: `${volume.name}@${stable ? moment : `gen=${generation}`}`,
    description: `${volume.name}, ${size}, ${momentText({ wallUs, generation, lineage })}`,
    multipleConnections: stable,
    fixContext,
  };
}

/** The open volumes, by name. */
export interface VolumeShelf {
  names(): readonly string[];
  find(name: string): Volume | undefined;
  /** Names of those that could not be opened, */
  failed(): readonly string[];
  /** and why. */
  failure(name: string): VarveError | undefined;
}

export class VolumeExports implements ExportDirectory {
  readonly #shelf: VolumeShelf;

  constructor(shelf: VolumeShelf) {
    this.#shelf = shelf;
  }

  async list(): Promise<readonly ExportListing[]> {
    const listings: ExportListing[] = [];
    for (const name of this.#shelf.names()) {
      const volume = this.#shelf.find(name);
      if (volume === undefined) continue;
      listings.push({ name, description: `${sizeText(volume.size)}, the live disk` });
      for (const { label, generation, momentWallUs } of snapshotsInOrder(volume.core)) {
        const description = `snapshot of ${timeText(momentWallUs)}, generation ${generation}`;
        listings.push({ name: `${name}@${label}`, description });
      }
    }
    return listings;
  }

  async open(name: string): Promise<OpenExport> {
    const { volume: wanted, moment } = parseExportName(name);
    const volume = this.#shelf.find(wanted === '' ? this.#only() : wanted);
    if (volume === undefined) {
      const failure = this.#shelf.failure(wanted);
      if (failure !== undefined) throw failure;
      throw new VarveError('VOLUME_UNKNOWN', `"${wanted}"; there are: ${this.#told()}`);
    }
    return openExport(volume, moment);
  }

  /** What the empty name stands for. */
  #only(): string {
    const [only, ...others] = [...this.#shelf.names(), ...this.#shelf.failed()];
    if (only !== undefined && others.length === 0) return only;
    throw new VarveError('VOLUME_AMBIGUOUS', `there are: ${this.#told()}`);
  }

  #told(): string {
    const names = this.#shelf.names();
    return names.length === 0 ? 'none' : names.join(', ');
  }
}
