/** The code of volumes, loaded already: a simulated world waits for nothing real. */
import type { VolumeCode } from '../../src/control/volume-directory.ts';
import { formatVolume } from '../../src/volume/format-volume.ts';
import { Volume } from '../../src/volume/volume.ts';

const openVolume: VolumeCode['openVolume'] = (...parts) => Volume.open(...parts);

export const loadVolumes = (): Promise<VolumeCode> => Promise.resolve({ formatVolume, openVolume });
