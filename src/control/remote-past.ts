/** The past of a volume that a server has: questions over its control socket, bytes over NBD. */
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
import type { Past } from './past.ts';
import {
  changedShape,
  pointShape,
  searchShape,
  sentShape,
  versionsShape,
  windowShape,
} from './past-shapes.ts';
import type { Shape } from './shape.ts';

/** Sends one call of the control protocol, and waits for its answer. */
export type Ask = <T>(
  call: string,
  request: object,
  shape: Shape<T>,
  progress?: Progress,
) => Promise<T>;

export interface RemoteVolume {
  readonly name: string;
  readonly ask: Ask;
  /** Opens an export of the server. */
  readonly open: (exportName: string) => Promise<OpenExport>;
}

export class RemotePast implements Past {
  readonly #volume: RemoteVolume;

  constructor(volume: RemoteVolume) {
    this.#volume = volume;
  }

  window(): Promise<PastWindow> {
    return this.#ask('window', {}, windowShape);
  }

  point(moment: string | undefined): Promise<PointInTime> {
    return this.#ask('point', { moment }, pointShape);
  }

  sent(moment: string | undefined): Promise<SentPoint> {
    return this.#ask('sent', { moment }, sentShape);
  }

  changed(query: ChangedQuery): Promise<ChangedPage> {
    return this.#ask('changed', query, changedShape);
  }

  versions(query: VersionsQuery): Promise<VersionsPage> {
    return this.#ask('versions', query, versionsShape);
  }

  search(query: SearchQuery, progress: Progress): Promise<SearchPage> {
    const pattern = Buffer.from(query.pattern).toString('hex');
    return this.#ask('search', { ...query, pattern }, searchShape, progress);
  }

  open(generation: Generation): Promise<OpenExport> {
    return this.#volume.open(`${this.#volume.name}@gen=${generation}`);
  }

  #ask<T>(call: string, request: object, shape: Shape<T>, progress?: Progress): Promise<T> {
    return this.#volume.ask(call, { ...request, name: this.#volume.name }, shape, progress);
  }
}
