/**
 * The past of one volume, wherever it is open: asked of the volume itself, or of a server. Answers
 * come in pages; who goes through several holds the older moment meanwhile, so that it stays.
 */
import type { Generation } from '../base/units.ts';
import type { OpenExport } from '../device/block-device.ts';
import type {
  ChangedPage,
  ChangedQuery,
  PastWindow,
  SearchPage,
  SearchQuery,
  SentPoint,
  VersionsPage,
  VersionsQuery,
} from '../volume/past-report.ts';
import type { PointInTime, Progress } from '../volume/report.ts';
import type { Volume } from '../volume/volume.ts';
import { openExport } from './export-directory.ts';

export interface Past {
  window(): Promise<PastWindow>;
  /**
   * A moment, as a generation.
   * @param moment - what stands behind the `@`; undefined: now
   * @throws VarveError MOMENT_*
   */
  point(moment: string | undefined): Promise<PointInTime>;
  /** A moment, as a stream names it. @throws VarveError MOMENT_* */
  sent(moment: string | undefined): Promise<SentPoint>;
  /** @throws VarveError MOMENT_OUTSIDE, USAGE */
  changed(query: ChangedQuery): Promise<ChangedPage>;
  /** @throws VarveError MOMENT_OUTSIDE, REQUEST_BAD, USAGE, DEVICE_IO */
  versions(query: VersionsQuery): Promise<VersionsPage>;
  /** @throws VarveError MOMENT_OUTSIDE, MOMENT_GONE, REQUEST_BAD, USAGE; what `progress` throws */
  search(query: SearchQuery, progress: Progress): Promise<SearchPage>;
  /**
   * Opens a moment, which stays readable as an open export does.
   * @returns to be closed by the caller
   */
  open(generation: Generation): Promise<OpenExport>;
}

/** Of a volume of this process. */
export class LocalPast implements Past {
  readonly #volume: Volume;

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  async window(): Promise<PastWindow> {
    return this.#volume.past.window();
  }

  async point(moment: string | undefined): Promise<PointInTime> {
    return this.#volume.past.point(moment);
  }

  async sent(moment: string | undefined): Promise<SentPoint> {
    return this.#volume.past.sent(moment);
  }

  changed(query: ChangedQuery): Promise<ChangedPage> {
    return this.#volume.past.changed(query);
  }

  versions(query: VersionsQuery): Promise<VersionsPage> {
    return this.#volume.past.versions(query);
  }

  search(query: SearchQuery, progress: Progress): Promise<SearchPage> {
    return this.#volume.past.search(query, progress);
  }

  open(generation: Generation): Promise<OpenExport> {
    return openExport(this.#volume, `gen=${generation}`);
  }
}
