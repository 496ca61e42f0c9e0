/** serve: every volume of the directory, until a signal. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { gibibytes, type ByteCount } from '../base/units.ts';
import type { NotServed, ServeOptions, Server } from '../control/server.ts';
import { sizeText } from '../control/size-text.ts';
import { tcpUri, unixUri, type TcpAddress } from '../control/uris.ts';
import { contextOf, parseMode, shared, type Context, type Setup } from './context.ts';
import { parseDiskSize } from './numbers.ts';
import { say, sayError, shellQuoted } from './output.ts';
import { given, untilSignal } from './signals.ts';

interface ServeFlags {
  readonly unix?: string;
  readonly tcp?: string;
  readonly create?: readonly string[];
  readonly writeMode?: string;
  readonly start?: boolean;
}

const START_NAME = 'disk';
const START_BYTES = gibibytes(1);
const START_TCP = '127.0.0.1:10809';

/** @throws VarveError ADDRESS_BAD */
export function parseAddress(text: string): TcpAddress {
  const parts = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (host === undefined || port > 65_535) throw new VarveError('ADDRESS_BAD', `got "${text}"`);
  return { host, port };
}

async function make(context: Context, name: string, size: ByteCount): Promise<void> {
  await context.withProgress(`making ${name}`, (progress) =>
    context.directory.create(name, { size }, progress),
  );
  if (context.isJson) return;
  say(`made a blank volume "${name}" of ${sizeText(size)} in ${context.directory.path}`);
}

interface Wanted {
  readonly name: string;
  readonly size: ByteCount;
}

/** @throws VarveError USAGE, SIZE_BAD, VOLUME_NAME_BAD */
function wantedOf(flags: ServeFlags): readonly Wanted[] {
  return (flags.create ?? []).map((request) => {
    const at = request.lastIndexOf(':');
    if (at < 1) throw new VarveError('USAGE', `--create: got "${request}", not NAME:SIZE`);
    return { name: request.slice(0, at), size: parseDiskSize(request.slice(at + 1)) };
  });
}

/** What makes volumes before they are opened; undefined: there are none to make. */
function preparing(context: Context, flags: ServeFlags): (() => Promise<void>) | undefined {
  const wanted = wantedOf(flags);
  if (wanted.length === 0 && flags.start !== true) return undefined;
  return () => prepare(context, wanted, flags);
}

/** Never makes a volume because one is missing: only a directory that does not exist is filled. */
async function prepare(
  context: Context,
  wanted: readonly Wanted[],
  flags: ServeFlags,
): Promise<void> {
  for (const { name, size } of wanted) await make(context, name, size);
  if (flags.start !== true) return;
  if (!(await context.directory.exists())) await make(context, START_NAME, START_BYTES);
  if ((await context.directory.names()).length > 0) return;
  throw new VarveError(
    'VOLUME_UNKNOWN',
    `${context.directory.path} exists and holds no volume; make one with \`varve create\``,
  );
}

/** Three lines to copy, which show the disk as it was. */
function examplesOf(server: Server): readonly string[] {
  const name = server.names[0] ?? START_NAME;
  const past = `${name}@-1m`;
  const { tcp, info } = server;
  const uri = tcp === undefined ? unixUri(past, info.nbdSocket) : tcpUri(past, tcp);
  const word = shellQuoted(uri);
  return [
    'the disk as it was a minute ago, once it has run for a minute (copy a line):',
    `  nbdinfo ${word}`,
    `  nbdcopy ${word} a-minute-ago.raw`,
    `  qemu-img convert -O qcow2 ${word} a-minute-ago.qcow2`,
  ];
}

/** What the flags ask for, checked before anything is done. */
function listenOptions({ unix, tcp, writeMode, start }: ServeFlags): ServeOptions {
  const listen = tcp ?? (start === true ? START_TCP : undefined);
  return {
    unixPath: unix === undefined ? undefined : resolve(unix),
    tcp: listen === undefined ? undefined : parseAddress(listen),
    writeMode: writeMode === undefined ? undefined : parseMode(writeMode),
  };
}

function sayWarning(line: string): void {
  process.stderr.write(`varve: ${line}\n`);
}

function toldFailure({ name, error }: NotServed): object {
  const { code, message, next } = error;
  return { name, code, message, next };
}

function sayReady(
  server: Server,
  { isJson, isStart }: { readonly isJson: boolean; readonly isStart: boolean },
): void {
  if (isJson) {
    say(
      JSON.stringify({
        ...server.info,
        volumes: server.names,
        notServed: server.failures.map(toldFailure),
        ready: true,
      }),
    );
    return;
  }
  for (const uri of server.info.uris) say(uri);
  if (isStart) for (const line of examplesOf(server)) say(line);
  say('ready');
}

export function addServe(program: Command, setup: Setup): void {
  const command = program
    .command('serve')
    .description('serve every volume of the directory over NBD, until SIGTERM')
    .option('--unix <path>', 'path of the Unix socket (default: DIR/nbd.sock)')
    .option('--tcp <host:port>', 'also listen here; port 0 takes a free one')
    .option('--create <name:size...>', 'make this volume first; it must not exist')
    .option('--write-mode <mode>', 'of all volumes, this time: back, written or through')
    .option(
      '--start',
      `what npm start does: TCP on ${START_TCP}, and where the directory does not exist,` +
        ` it is made with a blank ${sizeText(START_BYTES)} volume "${START_NAME}"`,
    );
  const examples = ['varve serve', 'varve serve --tcp 127.0.0.1:10809 --create disk:10G'];
  shared(command, examples).action(async (flags: ServeFlags) => {
    const options = listenOptions(flags);
    const context = await contextOf(command, setup);
    const { Server: NbdServer } = await import('../control/server.ts');
    const { serverPorts } = context.tools;
    const all = { ...options, prepare: preparing(context, flags), onRefusal: sayWarning };
    const serve = async (signal: AbortSignal): Promise<void> => {
      const server = await NbdServer.start(context.directory, all, serverPorts);
      // Loudly: the others are served, and somebody has to look after these.
      for (const { error } of server.failures) sayError(error, context.isJson);
      for (const line of server.unkept) sayWarning(line);
      sayReady(server, { isJson: context.isJson, isStart: flags.start === true });
      await given(signal);
      await server.stop();
    };
    await untilSignal(serve, () => process.exit(1));
    if (!context.isJson) say('stopped in order');
  });
}
