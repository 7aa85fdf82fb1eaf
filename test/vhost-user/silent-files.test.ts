/**
 * Descriptors of a file system that does not answer: its owner is the front-end, and a process that asks it anything waits for
 * ever. None of these tests would end if anything were asked.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { descriptorKind, fileSystemType } from '../../src/sys/descriptor-kind.ts';
import { closingsUnderWay } from '../../src/sys/shed.ts';
import { type SilentFuse, silentFuse } from '../support/silent-fuse.ts';
import { conversations, MIB, payloads } from './conversation.ts';

const converse = conversations();
let silent: SilentFuse | undefined;
beforeEach(async () => {
  silent = await silentFuse();
});
afterEach(async () => {
  silent?.file.close();
  await silent?.end();
  // What waited for the file system is let go by its end.
  await expect.poll(closingsUnderWay, { timeout: 60_000 }).toBe(0);
});

describe('a file of a file system that does not answer', () => {
  it('is told by what the kernel knows', context => {
    if (silent === undefined) return context.skip('needs FUSE, and the right to mount');
    expect(descriptorKind(silent.file)).toBe('path');
    expect(fileSystemType(silent.file)).toBe('fuse');
  });

  it.each(['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const)(
    'is refused as %s',
    (name, ...rest) => {
      if (silent === undefined) return;
      void rest;
      const talk = converse();
      talk.negotiate();
      expect(talk.accepts(name, payloads.u64(0), [silent.file.duplicate()])).toBe(false);
      expect(talk.refused[0].message).toMatch('a file or device is no doorbell');
    },
  );

  it('is refused as memory, with a sentence that says what to do, and closed where no guest waits', context => {
    if (silent === undefined) return context.skip('needs FUSE, and the right to mount');
    const talk = converse();
    talk.negotiate();
    const region = { guestAddress: 0, size: MIB, userAddress: 2 ** 46, mmapOffset: 0 };
    expect(talk.accepts('SET_MEM_TABLE', payloads.table([region]), [silent.file.duplicate()])).toBe(false);
    expect(talk.refused[0].message).toMatch(
      'its file is on fuse, which could make this daemon wait; use a memfd, tmpfs, hugetlbfs or a local disk',
    );
    // Its owner is asked whether it may be closed, and does not answer.
    expect(closingsUnderWay()).toBeGreaterThan(0);
  });

  it('is let go of unread where a message brings what it should not', context => {
    if (silent === undefined) return context.skip('needs FUSE, and the right to mount');
    const talk = converse();
    talk.negotiate();
    expect(talk.accepts('SET_OWNER', undefined, [silent.file.duplicate()])).toBe(false);
    expect(talk.accepts('SET_VRING_NUM', payloads.state(0, 8))).toBe(true);
  });
});
