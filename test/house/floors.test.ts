/**
 * The floors are rules of dependency-cruiser, and a rule that can never match passes in silence.
 * So each rule is broken here once, on purpose, and must be the one that complains.
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory, writeTree } from '../support/files.ts';
import { REPOSITORY } from '../../tools/repository.ts';

const CONFIG = join(REPOSITORY, '.dependency-cruiser.cjs');
const DEPCRUISE = join(REPOSITORY, 'node_modules/.bin/depcruise');

interface Violation {
  readonly rule: { readonly name: string };
  readonly from: string;
}

/** Runs the rules of the house on a tree of files. */
function cruise(root: string, folders: readonly string[]): readonly Violation[] {
  const run = spawnSync(DEPCRUISE, ['--config', CONFIG, '--output-type', 'json', ...folders], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  const report: { summary: { violations: readonly Violation[] } } = JSON.parse(run.stdout);
  return report.summary.violations;
}

/** What stands on each floor, so that whatever a plant imports exists. */
const FLOORS: Readonly<Record<string, string>> = {
  'src/base/own.ts': 'export const own = 1;\n',
  'src/format/own.ts': "export { own } from '../base/own.ts';\n",
  'src/device/own.ts': "export { own } from '../base/own.ts';\n",
  'src/explore/own.ts': "export { own } from '../device/own.ts';\n",
  'log/own.ts': "export { own } from '../src/device/own.ts';\n",
  'index/own.ts': "export { own } from '../src/format/own.ts';\n",
  'src/volume/own.ts':
    "export { own } from '../../log/own.ts';\nexport { own as other } from '../../index/own.ts';\n",
  'src/replica/own.ts': "export { own } from '../volume/own.ts';\n",
  'src/nbd/own.ts': "export { own } from '../device/own.ts';\n",
  'src/control/own.ts':
    "export { own } from '../replica/own.ts';\nexport { own as other } from '../nbd/own.ts';\n",
  'src/http/own.ts': "export { own } from '../control/own.ts';\n",
  'src/cli/own.ts': "export { own } from '../control/own.ts';\n",
  'src/app/own.ts':
    "export { own } from '../cli/own.ts';\nexport { own as other } from '../http/own.ts';\n",
  'src/app.ts': "export { own } from './app/own.ts';\n",
  'src/device/file-device.ts': "export { open } from 'node:fs';\n",
  'src/device/platform.ts': "export { open } from 'node:fs/promises';\n",
  'src/nbd/node-socket.ts': "export { connect } from 'node:net';\n",
  'src/control/node-peer.ts': "export { connect } from 'node:net';\n",
  'test/own.ts': "export { own } from '../src/app.ts';\n",
  'package.json': JSON.stringify({
    name: 'planted',
    type: 'module',
    dependencies: { declared: '1.0.0' },
    devDependencies: { developer: '1.0.0' },
  }),
  ...packageFiles('declared'),
  ...packageFiles('developer'),
  ...packageFiles('undeclared'),
};

function packageFiles(name: string): Record<string, string> {
  return {
    [`node_modules/${name}/package.json`]: JSON.stringify({ name, main: 'main.js' }),
    [`node_modules/${name}/main.js`]: 'module.exports = 1;\n',
  };
}

/**
 * One broken rule: the file that breaks it, what it says, and the rule that must complain; the
 * far side of a circle has none, since a circle is reported once.
 */
type Plant = readonly [file: string, text: string, rule?: string];

const uses = (path: string): string =>
  `import { own } from '${path}';\nexport const planted = own;\n`;
const usesType = (path: string): string =>
  `import type { own } from '${path}';\nexport type P = typeof own;\n`;

const PLANTS: readonly Plant[] = [
  ['src/base/up.ts', uses('../format/own.ts'), 'floor-base'],
  ['src/base/up-type.ts', usesType('../device/own.ts'), 'floor-base'],
  ['src/format/up.ts', uses('../../log/own.ts'), 'floor-format'],
  ['src/format/side.ts', uses('../device/own.ts'), 'floor-format'],
  ['src/device/up.ts', uses('../volume/own.ts'), 'floor-device'],
  ['src/explore/up.ts', usesType('../volume/own.ts'), 'floor-explore'],
  ['src/explore/side.ts', uses('../../log/own.ts'), 'floor-explore'],
  ['src/image/up.ts', uses('../volume/own.ts'), 'floor-image'],
  ['log/side.ts', uses('../index/own.ts'), 'floor-log'],
  ['log/up.ts', usesType('../src/volume/own.ts'), 'floor-log'],
  ['index/side.ts', uses('../log/own.ts'), 'floor-index'],
  ['index/side-type.ts', usesType('../log/own.ts'), 'floor-index'],
  ['index/devices.ts', uses('../src/device/own.ts'), 'floor-index'],
  ['src/volume/up.ts', uses('../nbd/own.ts'), 'floor-volume'],
  ['src/replica/up.ts', uses('../control/own.ts'), 'floor-replica'],
  ['src/replica/side.ts', uses('../nbd/own.ts'), 'floor-replica'],
  ['src/nbd/volume.ts', uses('../volume/own.ts'), 'floor-nbd'],
  ['src/nbd/log.ts', uses('../../log/own.ts'), 'floor-nbd'],
  ['src/nbd/index.ts', usesType('../../index/own.ts'), 'floor-nbd'],
  ['src/nbd/format.ts', uses('../format/own.ts'), 'floor-nbd'],
  ['src/control/up.ts', uses('../cli/own.ts'), 'floor-control'],
  ['src/http/side.ts', uses('../cli/own.ts'), 'floor-http'],
  ['src/http/up.ts', uses('../app.ts'), 'floor-http'],
  ['src/cli/side.ts', uses('../http/own.ts'), 'floor-cli'],
  ['src/cli/up.ts', uses('../app.ts'), 'floor-cli'],
  ['src/cli/up-folder.ts', uses('../app/own.ts'), 'floor-cli'],
  ['src/cellar/own.ts', uses('../base/own.ts'), 'known-floor'],
  ['src/loose.ts', uses('./base/own.ts'), 'known-floor'],
  ['log/round.ts', "import { back } from './trip.ts';\nexport const there = back;\n", 'no-circle'],
  ['log/trip.ts', "import type { there } from './round.ts';\nexport let back: typeof there;\n"],
  ['log/files.ts', "export { open } from 'node:fs';\n", 'world-in-adapters'],
  ['log/files-bare.ts', "export { open } from 'fs/promises';\n", 'world-in-adapters'],
  ['log/files-late.ts', "export const late = import('node:fs');\n", 'world-in-adapters'],
  ['index/worker.ts', "export { Worker } from 'node:worker_threads';\n", 'world-in-adapters'],
  ['src/nbd/socket.ts', "export { connect } from 'node:net';\n", 'world-in-adapters'],
  ['src/control/web.ts', "export { request } from 'node:http';\n", 'world-in-adapters'],
  ['src/volume/child.ts', "export { spawn } from 'node:child_process';\n", 'world-in-adapters'],
  [
    'src/volume/timers.ts',
    "export { setTimeout } from 'node:timers/promises';\n",
    'world-in-adapters',
  ],
  ['src/volume/tests.ts', uses('../../test/own.ts'), 'product-alone'],
  ['log/developer.ts', "import 'developer';\n", 'no-dev-dependency'],
  ['log/undeclared.ts', "import 'undeclared';\n", 'declared-dependency'],
  ['log/nowhere.ts', "import './nowhere-at-all.ts';\n", 'resolvable'],
];

const EXPECTED = PLANTS.flatMap(([file, , rule]) =>
  rule === undefined ? [] : [`${file}: ${rule}`],
).toSorted();

describe('the floors of the house', () => {
  it('let a house stand that keeps them', () => {
    using tree = temporaryDirectory();
    writeTree(tree.path, { ...FLOORS, 'log/declared.ts': "import 'declared';\n" });
    expect(cruise(tree.path, ['src', 'log', 'index', 'test'])).toEqual([]);
  });

  it('report each planted violation by its own rule, and nothing else', () => {
    using tree = temporaryDirectory();
    writeTree(tree.path, {
      ...FLOORS,
      ...Object.fromEntries(PLANTS.map(([f, text]) => [f, text])),
    });
    const found = cruise(tree.path, ['src', 'log', 'index', 'test']);
    const said = found.map(({ from, rule }) => `${from}: ${rule.name}`);
    expect(said.toSorted()).toEqual(EXPECTED);
  });

  it('have no rule that is never planted', () => {
    const config: { forbidden: readonly { name: string; severity: string }[] } = createRequire(
      import.meta.url,
    )(CONFIG);
    const planted = new Set(PLANTS.flatMap(([, , rule]) => rule ?? []));
    expect(new Set(config.forbidden.map(({ name }) => name))).toEqual(planted);
    expect(config.forbidden.filter(({ severity }) => severity !== 'error')).toEqual([]);
  });
});
