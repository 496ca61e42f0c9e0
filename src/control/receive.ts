/**
 * Receiving a stream into an open volume, as its bytes come.
 *
 * Invariant: only what the decoder has verified reaches the volume; and what came behind the last
 * seal does not count when the stream breaks off.
 */
import { VarveError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import { StreamDecoder, type StreamPart } from '../format/send-stream.ts';
import type { ReceiveSession } from '../volume/receive-session.ts';
import type { Progress, ReceiveReport } from '../volume/report.ts';
import type { Volume } from '../volume/volume.ts';

export class Reception {
  readonly #volume: Volume;
  readonly #progress: Progress;
  readonly #decoder = new StreamDecoder();
  #session: ReceiveSession | undefined;
  #report: ReceiveReport | undefined;
  #dataBytes = 0;
  #doneBytes = 0;

  constructor(volume: Volume, progress: Progress) {
    this.#volume = volume;
    this.#progress = progress;
  }

  /**
   * @param chunk - borrowed until done
   * @throws VarveError STREAM_BAD, VERSION_UNKNOWN, and what beginning and writing throw
   */
  async push(chunk: Uint8Array): Promise<void> {
    for (const part of this.#decoder.push(chunk)) await this.#apply(part);
  }

  /** @throws VarveError STREAM_CUT unless the end was there */
  finish(): ReceiveReport {
    if (this.#report !== undefined) return this.#report;
    const { generation, records } = this.#volume.receiver.info().unfinished ?? {};
    if (this.#session === undefined || records === undefined) {
      throw new VarveError('STREAM_CUT', 'it has no whole beginning; nothing was changed');
    }
    const kept = `${records} records are kept`;
    throw new VarveError('STREAM_CUT', `before the end of generation ${generation}; ${kept}`);
  }

  /** Whatever became of it: nothing more is written. */
  async close(): Promise<void> {
    await this.#session?.stop();
  }

  async #apply(part: StreamPart): Promise<void> {
    if (part.kind === 'header') {
      this.#dataBytes = part.header.dataBytes;
      this.#session = await this.#volume.receiver.begin(part.header);
      return;
    }
    const session = this.#session;
    if (session === undefined) throw new VarveError('STREAM_BAD', 'a record before its header');
    switch (part.kind) {
      case 'data':
        await session.data(part.block, part.bytes);
        this.#doneBytes += part.bytes.length;
        break;
      case 'hole':
      case 'allocated':
        await session.zeros(part.kind, part.block, part.count);
        // Data that is zeros was counted as data.
        if (part.kind === 'allocated') this.#doneBytes += part.count * BLOCK_BYTES;
        break;
      case 'seal':
        await session.keep(part.place);
        break;
      case 'end':
        this.#report = await session.end();
        break;
    }
    this.#progress(Math.min(this.#doneBytes, this.#dataBytes), this.#dataBytes);
  }
}

/** @throws VarveError as a Reception; and what `chunks` throws */
export async function receiveAll(
  volume: Volume,
  chunks: AsyncIterable<Uint8Array>,
  progress: Progress,
): Promise<ReceiveReport> {
  const reception = new Reception(volume, progress);
  try {
    for await (const chunk of chunks) await reception.push(chunk);
    return reception.finish();
  } finally {
    await reception.close();
  }
}
