/** The format of an image that a command names: said, or looked for when that was asked for. */
import { VarveError } from '../base/errors.ts';
import { streamStart } from '../control/stream-file.ts';
import type { OpenDevice } from '../device/lower-device.ts';
import { SEND_MAGIC } from '../format/send-layouts.ts';
import type { ImageFormat } from '../image/base-image.ts';
import type { Context } from './context.ts';

interface Said {
  /** Undefined: byte for byte, unless it looks like something else. */
  readonly format: ImageFormat | 'auto' | undefined;
  /** By which it is said. */
  readonly option: '--format' | '--base-format';
}

async function isStream(openDevice: OpenDevice, path: string): Promise<boolean> {
  const device = await openDevice(path, { readOnly: true, exclusiveBlockDevice: false });
  try {
    return (await streamStart(device)) === SEND_MAGIC;
  } finally {
    await device.close();
  }
}

/**
 * @param path - absolute
 * @throws VarveError IMAGE_FORMAT_UNSAID, FILE_BAD and what opening it throws
 */
export async function imageFormatOf(
  context: Context,
  path: string,
  { format, option }: Said,
): Promise<ImageFormat> {
  if (format === 'raw' || format === 'qcow2') return format;
  const { probeImage } = await import('../image/open-image.ts');
  const { openDevice } = context.tools;
  const found = await probeImage(openDevice, path);
  if (found === 'raw' && (await isStream(openDevice, path))) {
    const next = 'it goes into a volume by `varve receive NAME --input FILE`';
    throw new VarveError('FILE_BAD', `${path} is a stream of \`varve send\`, no image`, { next });
  }
  if (format === 'auto' || found === 'raw') return found;
  const next = `give ${option} qcow2 for the disk in it, or ${option} raw for the file byte for byte`;
  throw new VarveError('IMAGE_FORMAT_UNSAID', `${path} looks like ${found}`, { next });
}
