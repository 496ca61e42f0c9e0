/**
 * Every fuzzer of the house. A fuzzer that stands in no list is never run, so
 * test/fuzz/registry.test.ts compares this one with the files of fuzz/.
 */
import { fuzzer as formatLayouts } from './format/layouts.fuzz.ts';
import { fuzzer as indexBlocks } from './index/blocks.fuzz.ts';
import { fuzzer as indexPins } from './index/pins.fuzz.ts';
import { fuzzer as indexTimeline } from './index/timeline.fuzz.ts';
import { fuzzer as logBytes } from './log/bytes.fuzz.ts';
import { fuzzer as nbdCodecs } from './nbd/codecs.fuzz.ts';
import { fuzzer as nbdSessions } from './nbd/sessions.fuzz.ts';
import { fuzzer as nbdSim } from './nbd/sim.fuzz.ts';
import type { Fuzzer } from './options.ts';
import { fuzzer as volumePowerCuts } from './volume/power-cuts.fuzz.ts';

export const FUZZERS: readonly Fuzzer[] = [
  formatLayouts,
  indexBlocks,
  indexPins,
  indexTimeline,
  logBytes,
  nbdCodecs,
  nbdSessions,
  nbdSim,
  volumePowerCuts,
];
