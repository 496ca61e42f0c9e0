/** send and receive: a moment of a disk, or what changed since another, to another volume. */
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ERRORS, VarveError } from '../base/errors.ts';
import { parseExportName } from '../control/export-directory.ts';
import type { Operator } from '../control/operations.ts';
import type { Sending } from '../control/send.ts';
import { parseSize, sizeText } from '../control/size-text.ts';
import type { WriteStream } from '../control/stream-file.ts';
import { fromSystemError } from '../device/system-error.ts';
import { sendHeader } from '../format/send-layouts.ts';
import { decodeStreamHeader } from '../format/send.ts';
import { timeText } from '../volume/moment.ts';
import type { Progress } from '../volume/report.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';
import { intoPath, toStandardOutput } from './send-output.ts';
import { untilSignal } from './signals.ts';

const SEND_HELP = `
The stream goes to standard output, or to a file. Without --from it is the whole disk at that moment;
with --from only what changed since, for a volume that has received that moment and was not written
since. Both moments stay readable while it is sent, and clients go on writing. Everything in it is
checksummed; a receiver takes all of it or, for whoever looks, nothing. A file is called FILE.part until
it is whole and durable; until then --force leaves the one that is to be replaced.
`;

const RECEIVE_HELP = `
A whole disk makes the volume when there is none of that name. Changes fit only a volume that is what
they are since; until the last byte was verified it shows what it held before, and then what was sent,
after a crash too. Both moments are kept as snapshots; times in between mean the one before. A stream
that breaks off leaves what came: go on with \`varve send --resume\`, or give it up with --abort.
`;

interface SendFlags {
  readonly from?: string;
  readonly resume?: string;
  readonly output?: string;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

/** A moment, with or without the name of the volume before it. */
function momentIn(text: string, volume: string): string {
  const { volume: named, moment } = parseExportName(text);
  if (moment === undefined) return text;
  if (named === volume || named === '') return moment;
  throw new VarveError('USAGE', `both moments are of one volume; got "${volume}" and "${named}"`);
}

function summaryOf(name: string, { from, to, header, dataBytes, zeroBytes }: Sending): object {
  const { volume, size } = header.identity;
  const resumedAt = header.place?.records;
  return { name, volume, size, from, to, dataBytes, zeroBytes, resumedAt };
}

function summaryText(name: string, { from, to, dataBytes, zeroBytes }: Sending): string {
  const moment = `${name}@gen=${to.generation} (${timeText(to.wallUs)})`;
  const since = from === undefined ? 'the whole disk' : `what changed since gen=${from.generation}`;
  return `${moment}, ${since}: ${sizeText(dataBytes)} data, ${sizeText(zeroBytes)} zeros`;
}

async function sendIt(
  context: Context,
  sending: Sending,
  { name, write }: { readonly name: string; readonly write: WriteStream },
): Promise<void> {
  await context.withProgress(`sending ${name}`, async (progress) => {
    for await (const bytes of sending.bytes(progress)) await write(bytes);
  });
}

async function runSend(context: Context, name: string, flags: SendFlags): Promise<void> {
  const { volume, moment } = parseExportName(name);
  const from = flags.from === undefined ? undefined : momentIn(flags.from, volume);
  const query = { to: moment, from, token: flags.resume };
  const { withSending } = await import('../control/send.ts');
  await context.withOperator((operator) =>
    operator.withPast(volume, (past) =>
      withSending(past, query, async (sending) => {
        const summary = summaryOf(volume, sending);
        if (flags.dryRun === true) {
          if (context.isJson) return sayJson(summary);
          return say(`would send ${summaryText(volume, sending)}`);
        }
        const send = (write: WriteStream): Promise<void> =>
          sendIt(context, sending, { name: volume, write });
        if (flags.output === undefined) {
          await toStandardOutput(context.isJson, send);
          const line = context.isJson ? JSON.stringify(summary) : summaryText(volume, sending);
          process.stderr.write(context.isJson ? `${line}\n` : `sent ${line}\n`);
          return;
        }
        const path = resolve(flags.output);
        await intoPath(context.tools, { path, force: flags.force === true }, send);
        if (context.isJson) return sayJson({ ...summary, file: path });
        say(`sent ${summaryText(volume, sending)}, to ${flags.output}`);
      }),
    ),
  );
}

function addSend(program: Command, setup: Setup): void {
  const command = program
    .command('send <name>')
    .description('send a disk at a moment, or what changed since another, for `varve receive`')
    .option('--from <moment>', 'only what changed since this moment')
    .option('--resume <token>', 'go on with what `varve receive NAME --resume-token` tells')
    .option('--output <file>', 'write to this file, not to standard output')
    .option('--force', 'replace an existing file')
    .option('--dry-run', 'only tell how much it would be')
    .addHelpText('after', SEND_HELP);
  shared(command, [
    'varve send disk@monday | ssh backup varve receive disk',
    'varve send disk@tuesday --from monday | ssh backup varve receive disk',
    'varve send disk@tuesday --from monday --dry-run',
    'varve send disk --resume $(ssh backup varve receive disk --resume-token) | ssh backup varve receive disk',
    'varve send disk@monday --output monday.varve',
  ]).action(async (name: string, flags: SendFlags) => {
    const context = await contextOf(command, setup);
    await runSend(context, name, flags);
  });
}

interface ReceiveFlags {
  readonly input?: string;
  readonly resumeToken?: boolean;
  readonly abort?: boolean;
  readonly logSize?: string;
  readonly ringSize?: string;
}

/** The bytes of a file or of standard input, until a signal. */
async function* chunksOf(
  input: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  if (input === undefined && process.stdin.isTTY) {
    throw new VarveError(
      'USAGE',
      'a stream does not come from a terminal: give --input, or a pipe',
    );
  }
  const source = input === undefined ? process.stdin : createReadStream(resolve(input));
  const end = (): void => {
    source.destroy();
  };
  signal.addEventListener('abort', end);
  try {
    for await (const chunk of source) {
      if (signal.aborted) break;
      if (chunk instanceof Uint8Array) yield chunk;
    }
  } catch (error) {
    if (!signal.aborted) throw fromSystemError(error, `reading ${input ?? 'the stream'}`);
  } finally {
    signal.removeEventListener('abort', end);
  }
  if (signal.aborted) {
    const { next } = ERRORS.STREAM_CUT;
    throw new VarveError('INTERRUPTED', 'receiving', { next });
  }
}

interface Begun {
  /** All chunks, those that were looked at too. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** The first bytes: a header, unless the stream is shorter. */
  readonly start: Uint8Array;
}

/** Looks at the beginning of a stream, which stays in it. */
async function begun(source: AsyncGenerator<Uint8Array, void>): Promise<Begun> {
  const looked: Uint8Array[] = [];
  let length = 0;
  while (length < sendHeader.size) {
    const next = await source.next();
    if (next.done === true) break;
    looked.push(next.value);
    length += next.value.length;
  }
  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    yield* looked;
    yield* source;
  }
  return { chunks: chunks(), start: Buffer.concat(looked).subarray(0, sendHeader.size) };
}

/** Makes the volume that a whole disk goes into, if there is none. */
async function needVolume(
  operator: Operator,
  start: Uint8Array,
  { name, flags, progress }: { name: string; flags: ReceiveFlags; progress: Progress },
): Promise<void> {
  const known = await operator.list();
  if (known.some((volume) => volume.name === name)) return;
  if (start.length < sendHeader.size)
    throw new VarveError('STREAM_CUT', 'it has no whole beginning');
  const { identity, place } = decodeStreamHeader(start);
  if (identity.from !== undefined || place !== undefined) {
    throw new VarveError('VOLUME_UNKNOWN', `"${name}", and the stream is not of a whole disk`);
  }
  const { logSize, ringSize } = flags;
  await operator.create(
    name,
    {
      size: identity.size,
      logSize: logSize === undefined ? undefined : parseSize(logSize),
      ringSize: ringSize === undefined ? undefined : parseSize(ringSize),
    },
    progress,
  );
}

async function runReceive(context: Context, name: string, flags: ReceiveFlags): Promise<void> {
  const report = await untilSignal(async (signal) => {
    const { chunks, start } = await begun(chunksOf(flags.input, signal));
    return await context.withOperator((operator) =>
      context.withProgress(`receiving ${name}`, async (progress) => {
        await needVolume(operator, start, { name, flags, progress });
        // A bar is the sender's, where both may write to one terminal.
        return operator.receive(
          name,
          chunks,
          flags.input === undefined ? () => undefined : progress,
        );
      }),
    );
  });
  if (context.isJson) return sayJson({ name, ...report });
  const { generation, wallUs, base, here, snapshot } = report;
  const sent = `generation ${generation} of ${report.volume} (${timeText(wallUs)})`;
  say(`${name} is now ${sent}: snapshot ${snapshot}, ${name}@gen=${here}; before: gen=${base}`);
}

async function sayToken(context: Context, name: string): Promise<void> {
  const { receive } = await context.withOperator((operator) => operator.info(name));
  const { unfinished, received } = receive;
  if (unfinished === undefined || unfinished.isAborted) {
    const last =
      received && `, received was generation ${received.generation} of ${received.volume}`;
    const why = unfinished === undefined ? 'nothing is' : 'what was is being given up';
    throw new VarveError('RECEIVE_NONE', `"${name}": ${why}${last ?? ''}`);
  }
  if (context.isJson) return sayJson({ name, ...unfinished });
  say(unfinished.token);
}

function addReceive(program: Command, setup: Setup): void {
  const command = program
    .command('receive <name>')
    .description('take what `varve send` sends: all of it, or nothing that anybody sees')
    .option('--input <file>', 'read this file, not standard input')
    .option('--resume-token', 'print what `varve send --resume` needs to go on')
    .option('--abort', 'give up a receive that broke off: the volume is what it was before')
    .option('--log-size <size>', 'of a volume that is made')
    .option('--ring-size <size>', 'of a volume that is made')
    .addHelpText('after', RECEIVE_HELP);
  shared(command, [
    'varve send disk@monday | varve receive copy --dir /backup',
    'ssh origin varve send disk@tuesday --from monday | varve receive disk',
    'varve receive disk --input monday.varve',
    'varve receive disk --resume-token',
    'varve receive disk --abort',
  ]).action(async (name: string, flags: ReceiveFlags) => {
    const context = await contextOf(command, setup);
    if (flags.resumeToken === true) return sayToken(context, name);
    if (flags.abort !== true) return runReceive(context, name, flags);
    await context.withOperator((operator) =>
      context.withProgress(`giving up what ${name} was receiving`, (progress) =>
        operator.abortReceive(name, progress),
      ),
    );
    if (context.isJson) return sayJson({ name, aborted: true });
    say(`${name} is what it was before`);
  });
}

export function addSendCommands(program: Command, setup: Setup): void {
  addSend(program, setup);
  addReceive(program, setup);
}
