/**
 * The only wiring of real files, sockets and clock.
 *
 * What a command does not need is not loaded: `varve --help` opens neither volume nor socket code.
 */
import type { Tools } from '../cli/tools.ts';
import type { VolumeCode } from '../control/volume-directory.ts';

const NOTICE_MS = 2000;

/** A line on standard error from time to time: nothing else tells why an opening takes long. */
function rollbackNotice(): (name: string, done: number, total: number) => void {
  const told = new Map<string, number>();
  return (name, done, total) => {
    const nowMs = performance.now();
    const isEnd = done >= total;
    if (!isEnd && nowMs - (told.get(name) ?? -Infinity) < NOTICE_MS) return;
    told.set(name, nowMs);
    const part = total === 0 ? 100 : Math.floor((done / total) * 100);
    process.stderr.write(`varve: ${name}: going on with an unfinished rollback, ${part} %\n`);
  };
}

export async function loadTools(): Promise<Tools> {
  const [
    { NodeFiles },
    { realWorld },
    { FileDevice },
    { VolumeDirectory },
    { connectOperator },
    { nodeControlDoor },
  ] = await Promise.all([
    import('./node-files.ts'),
    import('./real-world.ts'),
    import('../device/file-device.ts'),
    import('../control/volume-directory.ts'),
    import('../control/connect-operator.ts'),
    import('../control/node-control-door.ts'),
  ]);
  const files = new NodeFiles();
  const openDevice: Tools['openDevice'] = (path, options) => FileDevice.open(path, options);
  const loadVolumes = async (): Promise<VolumeCode> => {
    const [{ formatVolume }, { Volume }] = await Promise.all([
      import('../volume/format-volume.ts'),
      import('../volume/volume.ts'),
    ]);
    return { formatVolume, openVolume: Volume.open.bind(Volume) };
  };
  const onRollback = rollbackNotice();
  const surroundings = { files, openDevice, world: realWorld, loadVolumes, onRollback };
  const ports = {
    controlDoor: nodeControlDoor,
    connectExport: async (path: string, name: string) => {
      const [{ openNbdExport }, { connectUnix }] = await Promise.all([
        import('../control/nbd-export.ts'),
        import('../nbd/node-socket.ts'),
      ]);
      return openNbdExport(() => connectUnix(path), name);
    },
  };
  return {
    directory: (path) => new VolumeDirectory(path, surroundings),
    operator: (directory) => connectOperator(directory, ports),
    openDevice,
    files,
    serverPorts: {
      files,
      world: realWorld,
      controlDoor: nodeControlDoor,
      startFrontEnd: async (exports) => {
        const [{ nodeFrontEnd }, { platform }] = await Promise.all([
          import('../control/node-front-end.ts'),
          import('../device/platform.ts'),
        ]);
        (await platform()).returnFreedBuffers();
        return nodeFrontEnd(exports, realWorld.timers);
      },
      pid: process.pid,
    },
  };
}
