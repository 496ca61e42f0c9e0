/** The pins that a catalogue knows of, as an opening finds it. */
import { Pins } from '../../index/pins.ts';
import type { Catalogue } from './catalogue.ts';
import type { CoreParts, PinReason } from './core.ts';

/** Made before the undo device is read, which frees what no pin needs. */
export function pinsOf({
  snapshots,
  unfinished,
  receiving,
  isBlank,
}: Catalogue): Pick<CoreParts, 'pins' | 'snapshotPins' | 'rollbackPin' | 'receivePin'> {
  const pins = new Pins<PinReason>();
  const snapshotPins: CoreParts['snapshotPins'] = new Map();
  for (const { label, generation } of snapshots.values()) {
    snapshotPins.set(label, pins.add(generation, { kind: 'snapshot', label }));
  }
  const rollbackPin = unfinished && pins.add(unfinished.generation, { kind: 'rollback' });
  const base = isBlank ? undefined : receiving?.base;
  const receivePin = base === undefined ? undefined : pins.add(base, { kind: 'receive' });
  return { pins, snapshotPins, rollbackPin, receivePin };
}
