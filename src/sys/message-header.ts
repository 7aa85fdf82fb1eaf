/** What the C library has of a message and the descriptors that go with it, on 64-bit Linux (recvmsg(2), cmsg(3)). */
import { struct } from './struct.ts';

export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;

export const MSGHDR = struct('msghdr', 56, {
  name: ['u64', 0],
  nameLength: ['u32', 8],
  iov: ['u64', 16],
  iovCount: ['u64', 24],
  control: ['u64', 32],
  controlLength: ['u64', 40],
  flags: ['u32', 48],
});
export const IOVEC = struct('iovec', 16, { base: ['u64', 0], length: ['u64', 8] });
export const CMSGHDR = struct('cmsghdr', 16, { length: ['u64', 0], level: ['u32', 8], type: ['u32', 12] });
