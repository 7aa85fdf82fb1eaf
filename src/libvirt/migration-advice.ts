/** What libvirt's words for a migration that it refused come to, for a person: which end is to be mended, and how. */

const NOT_REACHED =
  'the source does not reach the libvirt of the destination: try `virsh -c URI list` on the source, as the user that ' +
  'its libvirtd runs as';

/** libvirt's messages are those of its English sources, which it has where no locale was set. */
const ADVICE: readonly (readonly [words: RegExp, advice: string])[] = [
  [
    /same host/i,
    'name another host; where these are two, they have one host UUID (cloned disks do that): give each its own ' +
      'host_uuid in /etc/libvirt/libvirtd.conf (virtqemud.conf), and restart its libvirtd',
  ],
  [
    /resolved to localhost|requires an FQDN/i,
    'the destination calls itself localhost: give it a name that others resolve, or write migration_host in its ' +
      '/etc/libvirt/qemu.conf',
  ],
  [
    /already exists|already active|already defined/i,
    'the destination has a domain of this name or UUID: rename it or undefine it there',
  ],
  [
    /\bCPU\b|processor|microcode/i,
    "the hosts' processors differ: give the domain a model that both have (virsh hypervisor-cpu-baseline names it) " +
      'instead of host-passthrough, and start it anew',
  ],
  [
    /unsafe|shared storage|cache mode|data corruption/i,
    'its disks have to be on storage that both hosts see (NFS, Ceph, iSCSI), with cache=none; ' +
      'virsh migrate --copy-storage-all copies others',
  ],
  [
    /cannot access storage|storage file|no storage (pool|vol)|No such file or directory.*(disk|image)|failed to open/i,
    'a file of the domain is missing at the destination, at the same path: disks, kernel, firmware and ISO images',
  ],
  [
    /network not found|no network with|cannot get interface|bridge/i,
    'the destination lacks a network or bridge of the domain: define one of the same name there',
  ],
  [
    /machine type|unsupported machine|emulator/i,
    "the destination's QEMU does not know the domain's machine or emulator: install the same QEMU there, or a newer one",
  ],
  [/failed to connect socket/i, NOT_REACHED],
  [
    /host key verification|permission denied|authentication failed/i,
    "the source's libvirtd logs in at the destination, as its own user (root for qemu:///system): let that user " +
      'log in without a password (ssh-copy-id), and try `virsh -c URI list` as it',
  ],
  [
    /unable to connect to server|no route to host|connection refused|timed out|network is unreachable|could not resolve/i,
    'the source does not reach the destination: see that its libvirtd runs, that its name leads there from the source, ' +
      'and that ports 49152 to 49215 (migration_port_min of qemu.conf) are open to it',
  ],
  [/cannot recv data|end of file|unable to connect to libvirt/i, NOT_REACHED],
  [
    /post-?copy|userfaultfd/i,
    'post-copy needs userfaultfd at the destination (sysctl vm.unprivileged_userfaultfd=1 where QEMU is not root); ' +
      'or do without --postcopy',
  ],
];

/** Undefined where libvirt's words have to do. */
export const adviceFor = (message: string): string | undefined =>
  ADVICE.find(([words]) => words.test(message))?.[1];
