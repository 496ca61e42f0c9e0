/** What the commands need of the machine; wired by src/app, and loaded only when it is used. */
import type { Operator } from '../control/operations.ts';
import type { ServerPorts } from '../control/server.ts';
import type { VolumeDirectory } from '../control/volume-directory.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import type { MetaFiles } from '../device/meta-files.ts';

export interface Tools {
  directory(path: string): VolumeDirectory;
  /** The running server's operator, or one that opens volumes itself. */
  operator(directory: VolumeDirectory): Promise<Operator>;
  readonly serverPorts: ServerPorts;
  readonly openDevice: OpenDevice;
  readonly files: MetaFiles;
}

export type LoadTools = () => Promise<Tools>;
