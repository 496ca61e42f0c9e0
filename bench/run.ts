/**
 * `npm run bench`: Varve beside its peers, in full by hand, `--small` in CI to prove that it runs.
 *
 *   npm run bench -- [--small] [--rounds N] [--seconds N] [--servers a,b] [--json FILE]
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { compare, say, table, type CompareOptions } from './nbd/compare.ts';

const { values } = parseArgs({
  options: {
    small: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    servers: { type: 'string' },
    json: { type: 'string' },
  },
});

const options: CompareOptions = {
  servers: (values.servers ?? 'varve,nbdkit-file,qemu-nbd-qcow2').split(','),
  rounds: Number(values.rounds ?? (values.small ? 1 : 3)),
  seconds: Number(values.seconds ?? (values.small ? 1 : 5)),
  sizeBytes: values.small ? 64 * 2 ** 20 : 2 ** 30,
  logBytes: values.small ? 256 * 2 ** 20 : 8 * 2 ** 30,
};
const result = await compare(options);
say('');
say(table(result));
say('');
for (const [name, bytes] of Object.entries(result.peakBytes)) {
  say(`${name}: peak resident memory ${(bytes / 2 ** 20).toFixed(0)} MiB`);
}
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result, null, 2)}\n`);
