/**
 * The floors of the house: a file imports its own folder or a lower floor, never upwards, never
 * sideways, never in a circle. One rule a folder, so that a message names the folder that went
 * too far. test/house/floors.test.ts plants a violation of each rule.
 */
'use strict';

const UP_TO_NBD = [
  'base',
  'format',
  'device',
  'image',
  'explore',
  'log',
  'index',
  'volume',
  'replica',
  'nbd',
];

/** Every folder of the product, with the folders it may see beside itself. */
const FLOORS = {
  base: { at: 'src/base', sees: [] },
  format: { at: 'src/format', sees: ['base'] },
  device: { at: 'src/device', sees: ['base'] },
  // Disk images of other programs; they lie on lower devices.
  image: { at: 'src/image', sees: ['base', 'device'] },
  log: { at: 'log', sees: ['base', 'format', 'device'] },
  // The index does no I/O, so it has no use for devices.
  index: { at: 'index', sees: ['base', 'format'] },
  // What a power cut could leave is thought out without a volume.
  explore: { at: 'src/explore', sees: ['base', 'device'] },
  volume: { at: 'src/volume', sees: ['base', 'format', 'device', 'log', 'index'] },
  replica: { at: 'src/replica', sees: ['base', 'format', 'device', 'log', 'index', 'volume'] },
  nbd: { at: 'src/nbd', sees: ['base', 'device'] },
  control: {
    at: 'src/control',
    sees: UP_TO_NBD,
  },
  http: {
    at: 'src/http',
    sees: [...UP_TO_NBD, 'control'],
  },
  cli: {
    at: 'src/cli',
    sees: [...UP_TO_NBD, 'control'],
  },
};

const PRODUCT = '^(src|log|index)/';
const APP = '^src/app(/|\\.ts$)';
const inside = (name) => `^${FLOORS[name].at}/`;
const FLOOR_PATHS = [...Object.keys(FLOORS).map(inside), APP];

/** Files that may touch the real world. The same list stands in .oxlintrc.json. */
const ADAPTERS = [
  '^src/device/(file-device|platform)\\.ts$',
  '^src/nbd/node-socket\\.ts$',
  '^src/control/node-[^/]+\\.ts$',
  '^src/cli/',
  APP,
];

const WORLD_MODULES =
  '^(node:)?(fs|net|http|https|http2|tls|dgram|dns|child_process|cluster|worker_threads|os|timers|perf_hooks|process|inspector|v8|vm|tty|readline)(/|$)';

const floorRules = Object.entries(FLOORS).map(([name, { sees }]) => ({
  name: `floor-${name}`,
  comment: `${FLOORS[name].at} imports only itself${sees.map((other) => `, ${FLOORS[other].at}`).join('')}.`,
  severity: 'error',
  from: { path: inside(name) },
  to: { path: PRODUCT, pathNot: [name, ...sees].map(inside) },
}));

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...floorRules,
    {
      name: 'known-floor',
      comment: 'A product file stands on one of the floors listed here; src/app.ts is the top one.',
      severity: 'error',
      from: { path: PRODUCT, pathNot: FLOOR_PATHS },
      to: {},
    },
    {
      name: 'no-circle',
      comment: 'No import ever comes back to its own file, not even for a type.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'world-in-adapters',
      comment:
        'Only adapters and wiring touch the real world, so that the rest runs in simulation.',
      severity: 'error',
      from: { path: PRODUCT, pathNot: ADAPTERS },
      to: { dependencyTypes: ['core'], path: WORLD_MODULES },
    },
    {
      name: 'product-alone',
      comment: 'The product knows nothing of its tests, fuzzers, benchmarks and tools.',
      severity: 'error',
      from: { path: PRODUCT },
      to: { path: '^(test|fuzz|bench|tools)/' },
    },
    {
      name: 'no-dev-dependency',
      comment: 'What the product imports is installed with it.',
      severity: 'error',
      from: { path: PRODUCT },
      to: { dependencyTypes: ['npm-dev'] },
    },
    {
      name: 'declared-dependency',
      comment: 'What is imported stands in package.json.',
      severity: 'error',
      from: {},
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'resolvable',
      comment: 'Every import leads somewhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^dist/' },
    // No compiler settings are read: imports carry their extension, and there are no path aliases.
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.d.ts', '.json'],
    },
  },
};
