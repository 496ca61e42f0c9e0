/** A file that is the disk, byte for byte. */
import { assert } from '../base/assert.ts';
import type { ByteCount, ByteOffset } from '../base/units.ts';
import type { StatusRun } from '../device/block-device.ts';
import type { LowerDevice } from '../device/lower-device.ts';
import type { BaseImage, ImagePlugin } from './base-image.ts';

class RawImage implements BaseImage {
  readonly format = 'raw';
  readonly size: ByteCount;
  readonly files: readonly string[];
  readonly #device: LowerDevice;

  constructor(device: LowerDevice) {
    this.size = device.size;
    this.files = [device.name];
    this.#device = device;
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#device.read(offset, target);
  }

  /** Where its holes are is not asked: whoever reads them sees zeros. */
  extents(offset: ByteOffset, length: ByteCount): Promise<readonly StatusRun[]> {
    assert(offset + length <= this.size, 'what is asked for lies inside the disk');
    return Promise.resolve([{ length, flags: 0 }]);
  }

  close(): Promise<void> {
    return this.#device.close();
  }
}

export const rawPlugin: ImagePlugin = {
  open: (device) => Promise.resolve(new RawImage(device)),
};
