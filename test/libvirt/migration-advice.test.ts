/** What is advised where libvirt does not move a domain: the words are those of libvirt 9.0 and 11. */
import { expect, test } from 'vitest';
import { adviceFor } from '../../src/libvirt/migration-advice.ts';

test.each([
  ['Attempt to migrate guest to the same host 6e1a', /host_uuid/],
  ['hostname on destination resolved to localhost, but migration requires an FQDN', /migration_host/],
  ["operation failed: domain 'web' already exists with uuid 6e1a", /rename it or undefine/],
  [
    'unsupported configuration: guest CPU doesn’t match specification: missing features: avx512f',
    /hypervisor-cpu-baseline/,
  ],
  ['Unsafe migration: Migration without shared storage is unsafe', /cache=none/],
  [
    "Cannot access storage file '/var/lib/libvirt/images/web.qcow2': No such file or directory",
    /at the same path/,
  ],
  ["Network not found: no network with matching name 'lan'", /one of the same name/],
  ["Cannot get interface MTU on 'br0': No such device", /network or bridge/],
  ["unsupported configuration: machine type 'pc-q35-9.2' is not supported by emulator", /same QEMU/],
  ['Cannot recv data: Host key verification failed.: Connection reset by peer', /without a password/],
  ["unable to connect to server at 'host2:49152': No route to host", /49152 to 49215/],
  ["Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", /virsh -c URI list/],
  [
    "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied",
    /^the source does not reach/,
  ],
  [
    'internal error: unable to execute QEMU command: Postcopy is not supported: userfaultfd not available',
    /userfaultfd at/,
  ],
])('%s', (message, advice) => {
  expect(adviceFor(message) ?? '').toMatch(advice);
});
