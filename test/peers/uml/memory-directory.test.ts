import { describe, expect, it } from 'vitest';
import {
  inspectMemoryDirectory,
  memoryDirectory,
  mountOptions,
} from '../../../src/peers/uml/memory-directory.ts';

const MOUNTS = `/dev/vda / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw,nosuid,noexec 0 0
tmpfs /mnt/my\\040memory tmpfs rw,size=8G 0 0
tmpfs /dev/shm tmpfs rw,size=1G 0 0
`;

describe('the directory of a guest’s memory', () => {
  it('has the options of the innermost and latest mount it lies on', () => {
    expect(mountOptions('/home/x', MOUNTS)).toEqual(['rw', 'relatime']);
    expect(mountOptions('/dev/shm/x', MOUNTS)).toEqual(['rw', 'size=1G']);
    expect(mountOptions('/dev/shmoo', MOUNTS)).toEqual(['rw', 'relatime']);
    expect(mountOptions('/mnt/my memory', MOUNTS)).toEqual(['rw', 'size=8G']);
    expect(mountOptions('/x', '')).toEqual([]);
  });

  it('is refused with a reason when it is not there or no tmpfs', () => {
    expect(inspectMemoryDirectory('/nowhere').fault).toContain('cannot be used');
    expect(inspectMemoryDirectory('/proc').fault).toBeDefined();
    expect(() => memoryDirectory(4096, '/nowhere')).toThrow(/\/nowhere cannot be used/);
  });

  it('is refused when the memory does not fit, saying how much would', () => {
    expect(() => memoryDirectory(2 ** 52)).toThrow(/has only \d+ MiB free|not on a tmpfs|cannot be used/);
    expect(() => memoryDirectory(2 ** 52)).toThrow(/Give the guest less memory/);
  });
});
