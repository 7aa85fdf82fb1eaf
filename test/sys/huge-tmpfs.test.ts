/** A file on a tmpfs that is mounted nowhere: the kernel backs it with huge pages, and nothing of the machine is another. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { SystemError } from '../../src/sys/error.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { fileStatus, fileSystem } from '../../src/sys/file.ts';
import { createHugeTmpfsFile } from '../../src/sys/huge-tmpfs.ts';
import { Mapping } from '../../src/sys/mapping.ts';

const SIZE = 4 * 2 ** 20;

test.skipIf(process.getuid?.() !== 0)(
  'has huge pages, is mounted nowhere, and leaves nothing',
  ({ skip }) => {
    const mounts = () => readFileSync('/proc/self/mountinfo', 'utf8');
    const before = mounts();
    let file: ReturnType<typeof createHugeTmpfsFile>;
    try {
      file = createHugeTmpfsFile(SIZE);
    } catch (error) {
      expect(error).toBeInstanceOf(SystemError);
      // A container may not mount, and a kernel may have no huge pages; then nothing is left open either.
      expect(openDescriptorCount()).toBe(0);
      return skip((error as Error).message);
    }
    expect(mounts()).toBe(before);
    expect(fileSystem(file).kind).toBe('tmpfs');
    expect(fileStatus(file)).toMatchObject({ size: SIZE, residentBytes: 0, blockBytes: 2 ** 21 });
    const mapping = Mapping.shared(file.number, 0, SIZE);
    // One byte brings its whole huge page, where the host has one free.
    new Uint8Array(mapping.buffer, mapping.offset)[0] = 1;
    expect([4096, 2 ** 21]).toContain(fileStatus(file).residentBytes);
    mapping.close();
    file.close();
    expect(openDescriptorCount()).toBe(0);
  },
);
