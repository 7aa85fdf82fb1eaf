/**
 * The peers that can be installed for ourselves from Debian's archive: of which suites, which packages, and what of
 * them is needed. Pinned to suites, so that a peer's libraries fit it. How they are installed is debian/install.ts,
 * where they lie is roots.ts.
 */

export const PEER_NAMES = ['uml', 'qemu', 'linux-6.12', 'linux-7.3', 'uml-source'] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export interface PeerRecipe {
  /** For people. */
  readonly title: string;
  /** Suites of Debian's archive; packages come from the last where it has them. */
  readonly suites: readonly string[];
  readonly packages: readonly string[];
  /** Packages that ours depend on and a private root does not need. */
  readonly assumed: readonly string[];
  /** Paths in the root that are not kept: what nothing here reads, or that is only needed to install. */
  readonly discarded: readonly string[];
  /** What the version begins with, where the name promises one. */
  readonly version?: string;
}

const DOCUMENTATION = ['usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/lintian'];
const KERNEL_TOOLS = ['kmod', 'linux-base', 'initramfs-tools'];

export const RECIPES: Readonly<Record<PeerName, PeerRecipe>> = {
  uml: {
    title: 'Linux as a process (User Mode Linux)',
    suites: ['sid'],
    packages: ['user-mode-linux', 'busybox-static', 'patchelf'],
    assumed: [],
    discarded: [...DOCUMENTATION, 'etc', 'usr/lib/x86_64-linux-gnu/gconv'],
  },
  qemu: {
    title: 'QEMU with its tools',
    suites: ['trixie', 'trixie-backports'],
    packages: ['qemu-system-x86', 'qemu-utils'],
    assumed: [],
    discarded: DOCUMENTATION,
  },
  'linux-6.12': {
    title: "Linux 6.12 for QEMU's guests",
    suites: ['trixie'],
    packages: ['linux-image-cloud-amd64'],
    assumed: KERNEL_TOOLS,
    discarded: DOCUMENTATION,
    version: '6.12',
  },
  'linux-7.3': {
    title: "Linux 7.3 for QEMU's guests",
    suites: ['trixie', 'trixie-backports'],
    packages: ['linux-image-cloud-amd64'],
    assumed: KERNEL_TOOLS,
    discarded: DOCUMENTATION,
    version: '7.3',
  },
  'uml-source': {
    title: "Linux 7.2's sources, from which the driver in linux/ is built",
    suites: ['sid'],
    packages: ['linux-source-7.2'],
    // What unpacks them is this machine's own.
    assumed: ['binutils', 'xz-utils'],
    discarded: [...DOCUMENTATION, 'usr/src/linux-source-7.2.tar.xz', 'usr/src/linux-patch-7.2-rt.patch.xz'],
    version: '7.2',
  },
};
