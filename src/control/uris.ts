/** URIs of exports, as libnbd and qemu take them. Source: doc/uri.md of the NBD project. */

export interface TcpAddress {
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
}

/** Percent-encoded, save what a path may hold as it is and people want to read. */
function encoded(text: string): string {
  return encodeURIComponent(text).replaceAll('%40', '@').replaceAll('%3D', '=');
}

export function unixUri(exportName: string, socketPath: string): string {
  const socket = socketPath.split('/').map(encodeURIComponent).join('/');
  return `nbd+unix:///${encoded(exportName)}?socket=${socket}`;
}

export function tcpUri(exportName: string, { host, port }: TcpAddress): string {
  const shown = host.includes(':') ? `[${host}]` : host;
  return `nbd://${shown}:${port}/${encoded(exportName)}`;
}
