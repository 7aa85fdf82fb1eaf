/** A daemon that dies at any boundary while its guest gives pages and takes them back, and another that goes on. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BalloonDevice } from '../../src/device/balloon-device.ts';
import { PageAccounts } from '../../src/device/page-accounts.ts';
import { PageMoves } from '../../src/device/page-moves.ts';
import { RequestChannel } from '../../src/device/request-channel.ts';
import { KeptGuest } from '../../src/keeping/kept-guest.ts';
import { reportRestarts } from '../../src/sim/restart-history.ts';
import { BackendInflight } from '../../src/vhost-user/backend-inflight.ts';
import { MessageJournal } from '../../src/vhost-user/message-journal.ts';
import { PackedInflight } from '../../src/vhost-user/packed-inflight.ts';
import { RingPlace } from '../../src/vhost-user/ring-place.ts';
import { hasFeature, RING_PACKED } from '../../src/virtio/features.ts';
import { WRAP } from '../../src/virtio/queue.ts';
import { RingLog } from '../../src/virtio/ring-log.ts';

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_801);
/**
 * Histories; each has up to three deaths, and takes some 10 ms, of which no part takes much: a profile is flat. So a run has
 * a few seconds of them, and 10,000 are for `npm run sim -- restart --seeds 10000`.
 */
const SEEDS = Number(process.env.AEROSTAT_RESTARTS ?? 500);

afterEach(() => vi.restoreAllMocks());

describe(`histories in which the daemon dies, from seed ${SEED} on`, () => {
  it('lose no page, no buffer and no message', () => {
    const lines: string[] = [];
    const { failures } = reportRestarts({ seed: SEED, seeds: SEEDS }, line => lines.push(line));
    expect(failures, lines.join('\n')).toEqual([]);
  });

  it.each([5266, 6434])('take no ring up twice whose start was not recorded: seed %i', seed => {
    expect(reportRestarts({ seed, seeds: 1 }, () => {}).failures).toEqual([]);
  });

  it.each([1311, 2007])(
    "take no packed ring for another driver's that stands at its beginning, and whose first descriptor was never marked: seed %i (failed before)",
    seed => {
      expect(reportRestarts({ seed, seeds: 1 }, () => {}).failures).toEqual([]);
    },
  );

  it('have deaths at boundaries of every kind', () => {
    const { boundaries } = reportRestarts({ seed: SEED, seeds: 30 }, () => {});
    for (const where of [
      'before a publish',
      'after a publish',
      'a write of state',
      'after a message was taken',
    ]) {
      expect(boundaries).toHaveProperty([where]);
    }
  });
});

describe('a history finds', () => {
  const failuresOf = (seeds: number, failuresMax = 1, seed = 1): string => {
    const { failures } = reportRestarts({ seed, seeds, failuresMax }, () => {});
    return failures.map(({ message }) => message).join('\n');
  };

  it('an account that is written after what the driver hears of it', () => {
    // As it was when the last message was served.
    const { recover } = PageAccounts.prototype;
    const { record } = KeptGuest.prototype;
    let pages: number[] = [];
    vi.spyOn(KeptGuest.prototype, 'record').mockImplementation(function (this: KeptGuest, ...args) {
      pages = [];
      this.device?.accounts.all[0]?.ballooned.forEachRun((start, count) => {
        for (let page = start; page < start + count; page++) pages.push(page);
      });
      return record.apply(this, args);
    });
    vi.spyOn(PageAccounts.prototype, 'recover').mockImplementation(function (this: PageAccounts, discard) {
      recover.call(this, false);
      const [account] = this.all;
      account.ballooned.clearAll();
      for (const page of pages) account.give(page, 1, discard);
    });
    expect(failuresOf(100)).toMatch(/the account is wrong|is discarded and is the guest's|said to be bad/);
  });

  it('a discard that was pending and is so again after its page was taken back', () => {
    const { recover } = PageAccounts.prototype;
    const { tenureChanged, noteDevice } = KeptGuest.prototype;
    const once = new Set<number>();
    const note = (kept: KeptGuest) =>
      kept.device?.accounts.all[0]?.ballooned.forEachRun((start, count) => {
        for (let page = start; page < start + count; page++) once.add(page);
      });
    vi.spyOn(KeptGuest.prototype, 'tenureChanged').mockImplementation(function (this: KeptGuest) {
      note(this);
      tenureChanged.call(this);
    });
    vi.spyOn(KeptGuest.prototype, 'noteDevice').mockImplementation(function (this: KeptGuest) {
      note(this);
      noteDevice.call(this);
    });
    vi.spyOn(PageAccounts.prototype, 'recover').mockImplementation(function (this: PageAccounts, discard) {
      recover.call(this, discard);
      for (const page of once) this.all[0].pending.mark(page, 1);
      this.noteMarked(this.all[0]);
    });
    expect(failuresOf(100)).toContain("is discarded and is the guest's");
  });

  it('a discard of pages that their driver need not have told of', () => {
    const { recover } = PageAccounts.prototype;
    vi.spyOn(PageAccounts.prototype, 'recover').mockImplementation(function (this: PageAccounts) {
      recover.call(this, true);
    });
    expect(failuresOf(300)).toContain("is discarded and is the guest's");
  });

  it('a deflation that is taken once more and counts as bad pages', () => {
    vi.spyOn(PageMoves.prototype, 'takesAllAgain').mockImplementation(() => {});
    expect(failuresOf(100)).toContain('that it takes back are said to be bad');
  });

  it('a ring that goes on behind buffers that were taken and not returned', () => {
    const { unreturned } = RingPlace;
    vi.spyOn(RingPlace, 'unreturned').mockImplementation((config, memory, log) => {
      if (hasFeature(config.features, RING_PACKED)) return unreturned(config, memory, log);
      const available = memory.u16(config.driverArea + 2);
      return new RingPlace(config, available, available);
    });
    expect(failuresOf(60)).toMatch(/never come back|account is wrong/);
  });

  it('a packed ring whose log is written after what it is about', () => {
    const { writing } = RingLog.prototype;
    const late = new WeakMap<RingLog, Parameters<RingLog['writing']>>();
    vi.spyOn(RingLog.prototype, 'writing').mockImplementation(function (this: RingLog, ...args) {
      const before = late.get(this);
      if (before !== undefined) writing.apply(this, before);
      late.set(this, args);
    });
    expect(failuresOf(100)).not.toBe('');
  });

  it('a packed ring whose wrap counter is lost', () => {
    const { recover } = RingLog.prototype;
    vi.spyOn(RingLog.prototype, 'recover').mockImplementation(function (this: RingLog, ...args) {
      return recover.apply(this, args) | WRAP;
    });
    expect(failuresOf(200)).not.toBe('');
  });

  it('a packed ring that goes on behind a descriptor that was not written', () => {
    const { recover } = RingLog.prototype;
    vi.spyOn(RingLog.prototype, 'recover').mockImplementation(function (this: RingLog, config, memory) {
      const flags = vi.spyOn(memory, 'atomicLoadU16').mockReturnValueOnce(0);
      try {
        return recover.call(this, config, memory);
      } finally {
        flags.mockRestore();
      }
    });
    expect(failuresOf(200)).not.toBe('');
  });

  it('a packed ring that goes on at a descriptor of which a half is written', () => {
    const { recover } = RingLog.prototype;
    vi.spyOn(RingLog.prototype, 'recover').mockImplementation(function (this: RingLog, config, memory) {
      const undo = [
        vi.spyOn(memory, 'setU32').mockReturnValue(),
        vi.spyOn(memory, 'setU16').mockReturnValue(),
      ];
      try {
        return recover.call(this, config, memory);
      } finally {
        for (const spy of undo) spy.mockRestore();
      }
    });
    expect(failuresOf(400)).not.toBe('');
  });

  it('a buffer for requests that returns after answers that came behind it', () => {
    vi.spyOn(RequestChannel.prototype, 'returnPosted').mockImplementation(() => {});
    expect(failuresOf(300)).not.toBe('');
  });

  it('memory for what is in flight that the next daemon notes nothing in', () => {
    const { load } = BackendInflight.prototype;
    vi.spyOn(BackendInflight.prototype, 'load').mockImplementation(function (
      this: BackendInflight,
      state,
      fds,
    ) {
      load.call(this, { ...state, inflight: undefined }, fds);
    });
    expect(failuresOf(100)).toMatch(/by what is in flight, and at .* by what is kept/);
  });

  it('memory for what is in flight in which a packed ring is noted too late', () => {
    const { writing } = PackedInflight.prototype;
    const late = new WeakMap<PackedInflight, Parameters<PackedInflight['writing']>>();
    vi.spyOn(PackedInflight.prototype, 'writing').mockImplementation(function (
      this: PackedInflight,
      ...args
    ) {
      const before = late.get(this);
      if (before !== undefined) writing.apply(this, before);
      late.set(this, args);
    });
    expect(failuresOf(100)).not.toBe('');
  });

  it('memory for what is in flight whose reply is sent once more without its descriptor', () => {
    vi.spyOn(MessageJournal.prototype, 'reply', 'get').mockReturnValue(new Uint8Array(0));
    // The daemon has to die between that reply's record and its sending, which is rare: seed 833 has it do so.
    expect(failuresOf(60, 1, 800)).toContain('without its descriptor');
  });

  it('a session of hints whose id is not kept', () => {
    const { recover } = BalloonDevice.prototype;
    vi.spyOn(BalloonDevice.prototype, 'recover').mockImplementation(function (this: BalloonDevice, kept) {
      recover.call(this, { ...kept, hintId: 0 });
    });
    expect(failuresOf(200)).not.toBe('');
  });

  it('a message that was taken out of the socket and is served no more', () => {
    vi.spyOn(MessageJournal.prototype, 'unserved', 'get').mockReturnValue(undefined);
    expect(failuresOf(60)).not.toBe('');
  });

  it('a session that is recorded only when it begins', () => {
    const { commit } = MessageJournal.prototype;
    vi.spyOn(MessageJournal.prototype, 'commit').mockImplementation(function (
      this: MessageJournal,
      record,
      reply,
    ) {
      commit.call(this, this.live ? undefined : record, reply);
    });
    expect(failuresOf(60)).not.toBe('');
  });

  it('a reply that is sent once more', () => {
    const { commit } = MessageJournal.prototype;
    let replied = false;
    vi.spyOn(MessageJournal.prototype, 'commit').mockImplementation(function (
      this: MessageJournal,
      record,
      reply,
    ) {
      commit.call(this, record, reply);
      replied = reply !== undefined;
    });
    vi.spyOn(MessageJournal.prototype, 'owesReply', 'get').mockImplementation(() => replied);
    // The front-end may take it for the answer to what it asks next, too.
    expect(failuresOf(60, 3)).toMatch(/that is not waited for|refused/);
  });

  it('a reply that is owed and never sent', () => {
    vi.spyOn(MessageJournal.prototype, 'owesReply', 'get').mockReturnValue(false);
    expect(failuresOf(100)).toContain('is never answered');
  });
});
