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

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader of ours that has read enough is no failure.
  if (error.code === 'EPIPE') process.exit(0);
  if (error.code !== 'EIO' || !process.stdout.isTTY) throw error;
  // The terminal was closed. To exit without one, Node 20 crashes.
  process.kill(process.pid, 'SIGHUP');
});
// Nobody reads what is told there: that is no reason to end a server that has clients.
process.stderr.on('error', () => undefined);
process.exitCode = await main(process.argv.slice(2), { load: loadTools, version: version() });
