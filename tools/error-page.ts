/** docs/ERRORS.md, printed from the table of codes. */
import { ERRORS } from '../src/base/errors.ts';
import { row } from './markdown.ts';

const OPENING = `# Errors

Printed from \`src/base/errors.ts\` by \`npm run docs\`; a test fails when it is stale.

A fault of the world is a \`VarveError\` with one of these codes. A code keeps its meaning from
release to release, so scripts and tests may rely on it; the text may change. The command line
prints the code, the text, what happened this time and what to do, and with \`--json\` the same
as an object. An NBD client sees the errno and, while the connection is being made, the text.

A bug is not in this table: it is an assertion that stops the process.

- **errno**: what an NBD client is told.
- **exit**: how the command ends: 1, it failed; 2, it was asked wrongly.
`;

export function errorPage(): string {
  const rows = Object.entries(ERRORS)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, { errno, exit, text, next }]) =>
      row([`<a id="${code.toLowerCase()}"></a>\`${code}\``, errno, String(exit), text, next]),
    );
  const head = [
    row(['code', 'errno', 'exit', 'what it means', 'what to do']),
    row(Array(5).fill('---')),
  ];
  return [OPENING, ...head, ...rows].join('\n') + '\n';
}
