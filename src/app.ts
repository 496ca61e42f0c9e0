/** The program. */
import { readFileSync } from 'node:fs';
import { loadTools } from './app/load-tools.ts';
import { main } from './cli/main.ts';

function version(): string {
  const source = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const found: unknown = JSON.parse(source);
  const has = typeof found === 'object' && found !== null && 'version' in found;
  return has ? String(found.version) : 'unknown';
}

// A reader of ours that has read enough is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
process.exitCode = await main(process.argv.slice(2), { load: loadTools, version: version() });
