/**
 * The lock of the dependencies: what is missing in it, and how to complete it.
 *
 * Some packages are built for each platform and come as optional dependencies. Where a registry
 * does not carry a build, `npm install` leaves it out of the lock in silence, and `npm ci` then
 * refuses the lock. A missing build is named here with the platform that its name tells; a build
 * for another platform is never fetched, so the name, version and platform are all it needs.
 */
export interface LockedPackage {
  version?: string;
  cpu?: readonly string[];
  os?: readonly string[];
  libc?: readonly string[];
  dev?: boolean;
  optional?: boolean;
  optionalDependencies?: Readonly<Record<string, string>>;
}

export interface Lock {
  packages: Readonly<Record<string, LockedPackage>>;
}

const CPUS = ['arm64', 'arm', 'ia32', 'loong64', 'ppc64', 'riscv64', 's390x', 'x64'];
const SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'openbsd', 'openharmony', 'win32'];

/** The platform that a name such as `@oxlint/binding-linux-arm-musleabihf` tells. */
export function platformOf(name: string): Pick<LockedPackage, 'cpu' | 'os' | 'libc'> {
  const parts = name.split(/[/.-]/);
  const os = SYSTEMS.filter((system) => parts.includes(system));
  const cpu = CPUS.filter((kind) => parts.includes(kind));
  const libc =
    os.includes('linux') && parts.some((part) => part.startsWith('musl')) ? ['musl'] : [];
  if (os.includes('linux') && parts.some((part) => part.startsWith('gnu'))) libc.push('glibc');
  return { cpu, os, ...(libc.length > 0 && { libc }) };
}

/** Builds that a locked package names and the lock does not hold. */
export function missingBuilds(lock: Lock): Readonly<Record<string, LockedPackage>> {
  const missing: Record<string, LockedPackage> = {};
  for (const [place, { optionalDependencies = {}, dev }] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(optionalDependencies)) {
      const found = [`${place}/node_modules/${name}`, `node_modules/${name}`].some(
        (at) => at in lock.packages,
      );
      if (found) continue;
      missing[`node_modules/${name}`] = {
        version,
        ...platformOf(name),
        ...(dev === true && { dev }),
        optional: true,
      };
    }
  }
  return missing;
}

/** The lock with every missing build named, in the order npm keeps. */
export function completed(lock: Lock): Lock {
  const packages = Object.entries({ ...lock.packages, ...missingBuilds(lock) });
  const sorted = packages.toSorted(([a], [b]) => a.localeCompare(b, 'en'));
  return { ...lock, packages: Object.fromEntries(sorted) };
}
