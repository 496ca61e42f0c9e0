/** The operator of a directory: its server's, where one answers, else one that opens the volumes. */
import { join } from 'node:path';
import type { ControlDoor } from './control-channel.ts';
import { LocalOperator } from './local-operator.ts';
import type { Operator } from './operations.ts';
import { RemoteOperator, type ConnectExport } from './remote-operator.ts';
import { CONTROL_SOCKET } from './server.ts';
import type { VolumeDirectory } from './volume-directory.ts';
import { TransientVolumes } from './volume-pool.ts';

export interface OperatorPorts {
  readonly controlDoor: ControlDoor;
  readonly connectExport: ConnectExport;
}

export async function connectOperator(
  directory: VolumeDirectory,
  { controlDoor, connectExport }: OperatorPorts,
): Promise<Operator> {
  const channel = await controlDoor.connect(join(directory.path, CONTROL_SOCKET));
  if (channel !== undefined) return new RemoteOperator(channel, connectExport);
  return new LocalOperator(directory, new TransientVolumes(directory), { isServed: false });
}
