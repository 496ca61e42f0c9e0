/** The pins that a catalogue knows of, as an opening finds it. */
import { Pins } from '../../index/pins.ts';
import type { Catalogue } from './catalogue.ts';
import type { Core, PinReason } from './core.ts';

/** Made before the undo device is read, which frees what no pin needs. */
export function pinsOf({
  snapshots,
  unfinished,
}: Catalogue): Pick<Core, 'pins' | 'snapshotPins' | 'rollbackPin'> {
  const pins = new Pins<PinReason>();
  const snapshotPins: Core['snapshotPins'] = new Map();
  for (const { label, generation } of snapshots.values()) {
    snapshotPins.set(label, pins.add(generation, { kind: 'snapshot', label }));
  }
  const rollbackPin = unfinished && pins.add(unfinished.generation, { kind: 'rollback' });
  return { pins, snapshotPins, rollbackPin };
}
