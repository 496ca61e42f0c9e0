/** The format of an image that a command names: said, or looked for when that was asked for. */
import { VarveError } from '../base/errors.ts';
import type { ImageFormat } from '../image/base-image.ts';
import type { Context } from './context.ts';

/**
 * @param path - absolute
 * @param said - undefined: byte for byte, unless it looks like something else
 * @throws VarveError IMAGE_FORMAT_UNSAID and what opening it throws
 */
export async function imageFormatOf(
  context: Context,
  path: string,
  said: ImageFormat | 'auto' | undefined,
): Promise<ImageFormat> {
  if (said === 'raw' || said === 'qcow2') return said;
  const { probeImage } = await import('../image/open-image.ts');
  const found = await probeImage(context.tools.openDevice, path);
  if (said === 'auto' || found === 'raw') return found;
  throw new VarveError('IMAGE_FORMAT_UNSAID', `${path} looks like ${found}`);
}
