import { expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { ByteTaker } from '../../src/migration/byte-channel.ts';
import { PageSender } from '../../src/migration/page-sender.ts';
import { Ram } from '../../src/migration/ram.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { SourceLink } from '../../src/migration/source-link.ts';
import { writeBare, writeWelcome } from '../../src/migration/stream/messages.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';
import { TokenBucket } from '../../src/migration/token-bucket.ts';

/** A link, and what its destination says. */
function linked() {
  const addresses = { guestAddress: 0, size: PAGE_SIZE, userAddress: 0 };
  const ram = new Ram(new GuestMemory([new MemoryRegion(addresses, new HeapBacking(PAGE_SIZE))]));
  const [dirty, sent] = [new SlotBitmap(1), new SlotBitmap(1)];
  let taker: ByteTaker | undefined;
  const link = new SourceLink({
    channel: {
      write: async () => {},
      listen: listening => {
        taker = listening;
      },
      close: () => {},
      destroy: () => {},
    },
    sender: new PageSender({ ram, dirty, sent, share: { index: 0, of: 1 } }),
    bucket: new TokenBucket(Number.POSITIVE_INFINITY),
    clock: { nowMs: () => 0, sleep: async () => {} },
  });
  const writer = new SectionWriter();
  return {
    link,
    welcome: () => taker?.data(writeWelcome(writer, 0)),
    say: (kind: 'ready' | 'running') => taker?.data(writeBare(writer, kind)),
  };
}

test('answers are had in their order, whether they come before they are asked for or after', async () => {
  const { link, welcome, say } = linked();
  welcome();
  expect(await link.answer()).toEqual({ kind: 'welcome', features: 0 });
  const ready = link.answer();
  say('ready');
  expect(await ready).toEqual({ kind: 'ready' });
});

test('a destination that answers without end is not listened to', async () => {
  const { link, welcome, say } = linked();
  welcome();
  say('ready');
  await expect(link.broken).rejects.toThrow('ready came before it was due');
});
