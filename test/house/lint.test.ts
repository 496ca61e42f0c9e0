/**
 * The habits that the linter keeps: each one is broken here on purpose and must be reported by its
 * own rule, and what an adapter or a test may do must pass.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory, writeTree } from '../support/files.ts';
import { REPOSITORY } from '../../tools/repository.ts';

interface Diagnostic {
  readonly code: string;
  readonly filename: string;
}

/** Lints a tree as this checkout is linted. */
function lint(root: string): readonly string[] {
  for (const name of ['.oxlintrc.json', 'tsconfig.json', 'src/base/units.ts']) {
    copyFileSync(join(REPOSITORY, name), join(root, name));
  }
  symlinkSync(join(REPOSITORY, 'node_modules'), join(root, 'node_modules'));
  const oxlint = join(REPOSITORY, 'node_modules/.bin/oxlint');
  const run = spawnSync(oxlint, ['--type-aware', '--deny-warnings', '--format', 'json'], {
    cwd: root,
    encoding: 'utf8',
  });
  const report: { diagnostics: readonly Diagnostic[] } = JSON.parse(run.stdout);
  return report.diagnostics.map(({ code, filename }) => `${filename}: ${code}`).toSorted();
}

const later =
  'export async function later(): Promise<number> {\n  return await Promise.resolve(1);\n}\n';
const state = "export type State = 'open' | 'closed';\n";
const lines = (count: number, line: string): string => `${line}\n`.repeat(count);

/** A file, what it says, and the rule that must complain. */
type Plant = readonly [file: string, text: string, rule: string];

const GLOBALS: readonly Plant[] = [
  ['log/date.ts', 'export const now = Date.parse;\n', 'eslint(no-restricted-globals)'],
  ['index/date.ts', 'export const now = new Date();\n', 'eslint(no-restricted-globals)'],
  [
    'log/performance.ts',
    'export const now = performance.now();\n',
    'eslint(no-restricted-globals)',
  ],
  ['src/volume/timeout.ts', 'setTimeout(() => undefined, 1);\n', 'eslint(no-restricted-globals)'],
  ['src/volume/interval.ts', 'setInterval(() => undefined, 1);\n', 'eslint(no-restricted-globals)'],
  ['src/nbd/immediate.ts', 'setImmediate(() => undefined);\n', 'eslint(no-restricted-globals)'],
  [
    'src/control/env.ts',
    "export const home = process.env['HOME'];\n",
    'eslint(no-restricted-globals)',
  ],
  [
    'src/base/crypto.ts',
    'export const id = crypto.randomUUID();\n',
    'eslint(no-restricted-globals)',
  ],
  ['src/base/around.ts', 'export const now = globalThis.Date;\n', 'eslint(no-restricted-globals)'],
  ['index/random.ts', 'export const dice = Math.random();\n', 'eslint(no-restricted-properties)'],
  [
    'src/nbd/signal.ts',
    'export const soon = AbortSignal.timeout(1);\n',
    'eslint(no-restricted-properties)',
  ],
  // The calendar is allowed there, the time of day is not.
  ['src/volume/moment.ts', 'export const now = Date.now();\n', 'eslint(no-restricted-properties)'],
  ['log/console.ts', "console.log('written');\n", 'eslint(no-console)'],
];

const IMPORTS: readonly Plant[] = [
  ['log/files.ts', "import { open } from 'node:fs';\nexport const use = open;\n", ''],
  ['log/files-bare.ts', "import { open } from 'fs/promises';\nexport const use = open;\n", ''],
  [
    'index/child.ts',
    "import { spawn } from 'node:child_process';\nexport const use = spawn;\n",
    '',
  ],
  ['src/nbd/socket.ts', "import { connect } from 'node:net';\nexport const use = connect;\n", ''],
  ['src/control/web.ts', "import { request } from 'node:http';\nexport const use = request;\n", ''],
  ['src/format/env.ts', "import { env } from 'node:process';\nexport const use = env;\n", ''],
  [
    'src/device/wait.ts',
    "import { setTimeout as s } from 'node:timers/promises';\nexport const use = s;\n",
    '',
  ],
  [
    'src/base/uuid.ts',
    "import { randomUUID } from 'node:crypto';\nexport const use = randomUUID;\n",
    '',
  ],
].map(([file = '', text = '']) => [file, text, 'eslint(no-restricted-imports)'] as const);

const cast = (from: string, path: string): string =>
  `import type { Generation } from '${path}';\n` +
  `export function next(value: ${from}): Generation {\n  return value as Generation;\n}\n`;

const TYPES: readonly Plant[] = [
  ['log/cast.ts', cast('number', '../src/base/units.ts'), 'typescript(no-unsafe-type-assertion)'],
  [
    'index/cast.ts',
    cast('unknown', '../src/base/units.ts'),
    'typescript(no-unsafe-type-assertion)',
  ],
  ['test/cast.ts', cast('number', '../src/base/units.ts'), 'typescript(no-unsafe-type-assertion)'],
  [
    'log/any.ts',
    'export function f(value: any): void {\n  void value;\n}\n',
    'typescript(no-explicit-any)',
  ],
  [
    'log/parse.ts',
    "export const value: { a: 1 } = JSON.parse('1');\n",
    'typescript(no-unsafe-assignment)',
  ],
  ['log/floating.ts', `${later}later();\n`, 'typescript(no-floating-promises)'],
  [
    'log/misused.ts',
    `${later}[1].forEach(async () => {\n  await later();\n});\n`,
    'typescript(no-misused-promises)',
  ],
  [
    'log/condition.ts',
    `${later}export const no = later() ? 1 : 2;\n`,
    'typescript(no-misused-promises)',
  ],
  [
    'log/unawaited.ts',
    `${later}export async function f(): Promise<number> {\n  try {\n    return later();\n  } catch {\n    return 0;\n  }\n}\n`,
    'typescript(return-await)',
  ],
  [
    'log/switch.ts',
    `${state}export function f(s: State): number {\n  switch (s) {\n    case 'open':\n      return 1;\n    default:\n      return 2;\n  }\n}\n`,
    'typescript(switch-exhaustiveness-check)',
  ],
];

const SHAPE: readonly Plant[] = [
  ['log/default.ts', 'export default 1;\n', 'import(no-default-export)'],
  ['log/barrel.ts', "export * from './default.ts';\n", 'oxc(no-barrel-file)'],
  ['log/long.ts', lines(501, 'export {};'), 'eslint(max-lines)'],
  ['test/long.ts', lines(501, 'export {};'), 'eslint(max-lines)'],
  [
    'log/long-function.ts',
    `export function long(): number {\n  let n = 0;\n${lines(70, '  n += 1;')}  return n;\n}\n`,
    'eslint(max-lines-per-function)',
  ],
];

const PLANTS = [...GLOBALS, ...IMPORTS, ...TYPES, ...SHAPE];

/** What adapters, wiring and tests may do. */
const world =
  "import { open } from 'node:fs';\nimport { connect } from 'node:net';\n" +
  "export const use = [open, connect, Date.now(), Math.random(), process.env['HOME']];\n" +
  'setTimeout(() => undefined, 1);\n';
const ALLOWED: Readonly<Record<string, string>> = {
  'src/device/file-device.ts': world,
  'src/device/platform.ts': world,
  'src/nbd/node-socket.ts': world,
  'src/control/node-peer.ts': world,
  'src/app.ts': world,
  'src/app/wiring.ts': world,
  'src/cli/main.ts': world,
  'test/world.ts': world,
  'fuzz/world.ts': world,
  'bench/world.ts': world,
  'tools/world.ts': world,
  // Said aloud: a rejection here is a bug, and stops the process.
  'log/void.ts': `${later}void later();\n`,
  'src/volume/moment.ts': "export const start = Date.parse('1970-01-01');\n",
  'log/hash.ts': "import { createHash } from 'node:crypto';\nexport const use = createHash;\n",
  'log/total.ts': `${state}export function f(s: State): number {\n  switch (s) {\n    case 'open':\n      return 1;\n    case 'closed':\n      return 2;\n    default:\n      return s;\n  }\n}\n`,
  'test/long-function.ts': `export function long(): number {\n  let n = 0;\n${lines(70, '  n += 1;')}  return n;\n}\n`,
};

describe('the habits of the house', () => {
  it('let pass what adapters, wiring and tests may do, and the casts of units.ts', () => {
    using tree = temporaryDirectory();
    writeTree(tree.path, { 'src/base/units.ts': '', ...ALLOWED });
    expect(lint(tree.path)).toEqual([]);
  });

  it('report each planted violation by its own rule, and nothing else', () => {
    using tree = temporaryDirectory();
    const planted = Object.fromEntries(PLANTS.map(([file, text]) => [file, text]));
    writeTree(tree.path, { 'src/base/units.ts': '', ...planted });
    expect(lint(tree.path)).toEqual(PLANTS.map(([file, , rule]) => `${file}: ${rule}`).toSorted());
  });
});
