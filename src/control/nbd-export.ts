/** An export of a running server as a block device: the NBD client, behind the port. */
import { VarveError, type ErrorCode, type Errno } from '../base/errors.ts';
import { byteCount, mebibytes, type ByteCount, type ByteOffset } from '../base/units.ts';
import { UnreadableError } from '../base/unreadable.ts';
import type {
  BlockDevice,
  OpenExport,
  StatusRun,
  WriteOptions,
  ZeroOptions,
} from '../device/block-device.ts';
import { NbdClient, NbdError } from '../nbd/client.ts';
import { NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_READ_ONLY } from '../nbd/protocol.ts';
import type { Socket } from '../nbd/socket.ts';

const ALLOCATION = 'base:allocation';
const PAYLOAD_BYTES_MAX: ByteCount = mebibytes(32);
/** A length on the wire has 32 bits. */
const RANGE_BYTES_MAX: ByteCount = mebibytes(1024);

const CODES: Readonly<Record<Errno, ErrorCode>> = {
  EPERM: 'READ_ONLY',
  EIO: 'DEVICE_IO',
  ENOMEM: 'DEVICE_IO',
  EINVAL: 'REQUEST_BAD',
  ENOSPC: 'LOG_FULL',
  EOVERFLOW: 'REQUEST_TOO_LONG',
  ENOTSUP: 'PROTOCOL',
  ESHUTDOWN: 'CLOSED',
};

async function ours<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw error instanceof NbdError ? ourError(error) : error;
  }
}

function ourError(error: NbdError): VarveError {
  const detail = `the server answered ${error.message}`;
  return new VarveError(CODES[error.errno], detail, { cause: error });
}

class NbdExport implements BlockDevice {
  readonly size: ByteCount;
  readonly readOnly: boolean;
  readonly requestBytesMax = PAYLOAD_BYTES_MAX;
  readonly #client: NbdClient;
  #closed = false;

  constructor(client: NbdClient) {
    this.#client = client;
    this.size = byteCount(client.size);
    this.readOnly = (client.info.flags & NBD_FLAG_READ_ONLY) !== 0;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    try {
      await this.#client.readInto(offset, target);
    } catch (error) {
      if (!(error instanceof NbdError)) throw error;
      if (error.missing === undefined || error.errno !== 'EIO') throw ourError(error);
      for (const { offset: at, length } of error.missing) {
        target.fill(0, at - offset, at - offset + length);
      }
      throw new UnreadableError('BLOCK_CORRUPT', error.missing, { cause: error });
    }
  }

  async write(offset: ByteOffset, source: Uint8Array, options: WriteOptions): Promise<void> {
    await ours(this.#client.write(offset, source, options));
  }

  async trim(offset: ByteOffset, length: ByteCount, options: WriteOptions): Promise<void> {
    await inRanges(offset, length, (at, part) => this.#client.trim(at, part, options));
  }

  async zero(offset: ByteOffset, length: ByteCount, options: ZeroOptions): Promise<void> {
    const { fua, allocate: noHole } = options;
    await inRanges(offset, length, (at, part) => this.#client.zero(at, part, { fua, noHole }));
  }

  async flush(): Promise<void> {
    await ours(this.#client.flush());
  }

  async cache(offset: ByteOffset, scratch: Uint8Array): Promise<void> {
    await ours(this.#client.cache(offset, scratch.length));
  }

  async contexts(query: string | undefined): Promise<readonly string[]> {
    const known = this.#client.info.contexts.map(({ name }) => name);
    return query === undefined ? known : known.filter((name) => name.startsWith(query));
  }

  async status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    const asked = Math.min(length, RANGE_BYTES_MAX);
    const runs = (await ours(this.#client.status(offset, asked))).get(context) ?? [];
    if (runs.length === 0) throw new VarveError('PROTOCOL', `no status for "${context}"`);
    return runs.slice(0, runsMax).map((run) => ({ ...run, length: byteCount(run.length) }));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#client.disconnect();
  }
}

async function inRanges(
  offset: number,
  length: number,
  work: (offset: number, length: number) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length; done += RANGE_BYTES_MAX) {
    await ours(work(offset + done, Math.min(RANGE_BYTES_MAX, length - done)));
  }
}

/**
 * @param connect - a stream to the server
 * @throws VarveError SERVER_GONE, VOLUME_UNKNOWN with what the server says of the name
 */
export async function openNbdExport(
  connect: () => Promise<Socket>,
  exportName: string,
): Promise<OpenExport> {
  const client = await NbdClient.connect(await connect(), {
    exportName,
    metaContexts: [ALLOCATION],
  });
  const { canonicalName, description, flags } = client.info;
  return {
    device: new NbdExport(client),
    canonicalName: canonicalName ?? exportName,
    description: description ?? '',
    multipleConnections: (flags & NBD_FLAG_CAN_MULTI_CONN) !== 0,
  };
}
