/** The model follows the stream of an open volume: that is the one order (law 2). */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { Volume } from '../../src/volume/volume.ts';
import type { VolumeModel } from '../model/volume-model.ts';

/** @param onRequest - called as each request begins */
export function followStream(volume: Volume, model: VolumeModel, onRequest: () => void): void {
  const { stream } = volume.core.log;
  const putData = stream.putData.bind(stream);
  const putRange = stream.putRange.bind(stream);
  const beginRequest = stream.beginRequest.bind(stream);
  let changes: { block: number; content: Uint8Array | undefined }[] = [];
  stream.beginRequest = () => {
    changes = [];
    onRequest();
    return beginRequest();
  };
  stream.putData = (block, source, at, crc, last, fua) => {
    changes.push({ block, content: source.slice(at, at + BLOCK_BYTES) });
    if (last) model.apply(changes);
    return putData(block, source, at, crc, last, fua);
  };
  stream.putRange = (kind, block, count, last, fua) => {
    for (let i = 0; i < count; i++) changes.push({ block: block + i, content: undefined });
    if (last) model.apply(changes);
    putRange(kind, block, count, last, fua);
  };
}
