/**
 * What VIRTIO 1.4 (5.5) demands of a traditional memory balloon device, clause by clause. docs/conformance.md is made from
 * the titles, whose numbers comments in the sources cite. Tests without a number are of demands that clauses imply.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { MUST_TELL_HOST, PAGE_POISON } from '../../src/balloon/features.ts';
import { HINT_DONE, HINT_ID_MIN, HINT_STOP } from '../../src/balloon/hint-session.ts';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { STATISTIC_BYTES } from '../../src/balloon/statistics.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, u32 } from '../support/device-rig.ts';

const P = FIRST_PAGE;
const page = (pfn: number, count = 1) => [pfn * PAGE_SIZE, count * PAGE_SIZE] as const;

afterAll(() => expect(openDescriptorCount()).toBe(0));

/** Statistics as a guest writes them. */
function statistics(...entries: readonly (readonly [tag: number, value: number])[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * STATISTIC_BYTES);
  const view = new DataView(bytes.buffer);
  entries.forEach(([tag, value], index) => {
    view.setUint16(index * STATISTIC_BYTES, tag, true);
    view.setBigUint64(index * STATISTIC_BYTES + 2, BigInt(value), true);
  });
  return bytes;
}

/** A rig whose hint session runs, and its id. */
function hinting(options: Parameters<typeof openRig>[0] = {}): { rig: DeviceRig; id: number } {
  const rig = openRig(options);
  const id = rig.device.hints.begin();
  rig.queue('hint').exchange({ out: [u32(id)] });
  expect(rig.device.hints.phase).toBe('running');
  return { rig, id };
}

describe('statistics', () => {
  test('V3: statistics with unknown tags are ignored, and the known ones beside them are taken', () => {
    const rig = openRig();
    rig.queue('stats').exchange({ out: [statistics([99, 1], [4, 4096], [0xffff, 2])] });
    expect(rig.device.statistics.sample.freeBytes).toBe(4096);
    expect(Object.values(rig.device.statistics.sample).filter(value => value !== null)).toHaveLength(1);
    expect(rig.host.badInputs).toEqual([]);
    expect(rig.host.statisticsSamples).toBe(1);
  });

  test('V4: statistics are taken in any order', () => {
    const orders = [
      [5, 4, 0],
      [0, 4, 5],
      [4, 0, 5],
    ];
    const samples = orders.map(order => {
      const rig = openRig();
      rig.queue('stats').exchange({ out: [statistics(...order.map(tag => [tag, tag * 100] as const))] });
      return rig.device.statistics.sample;
    });
    expect(samples[0]).toMatchObject({ swapInBytes: 0, freeBytes: 400, totalBytes: 500 });
    expect(samples[1]).toEqual(samples[0]);
    expect(samples[2]).toEqual(samples[0]);
  });

  test('a buffer is kept until the host wants a newer sample, and comes back with length 0', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    expect(queue.exchange({ out: [statistics([4, 1])] })).toEqual([]);
    rig.device.statistics.request();
    expect(queue.collect()).toEqual([{ token: 0, written: 0 }]);
    // Nothing is kept any more: the next sample is on its way, and there is nothing to return.
    rig.device.statistics.request();
    expect(queue.collect()).toEqual([]);
    queue.exchange({ out: [statistics([4, 2])] });
    expect(rig.device.statistics.sample.freeBytes).toBe(2);
  });
});

describe('free page hints', () => {
  test('V5: the command is STOP when hints cannot be used: before a session, when stopped, and without a ring', () => {
    const { rig, id } = hinting();
    expect(rig.readConfig('freePageHintCommandId')).toBe(id);
    rig.device.hints.end();
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_STOP);
    rig.queue('hint').exchange({ out: [u32(rig.device.hints.begin())] });
    rig.device.stopQueue(rig.queue('hint').index, 'paused');
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_STOP);
    expect(openRig().readConfig('freePageHintCommandId')).toBe(HINT_STOP);
  });

  test('V5: the command is STOP when the hint ring turns out to be broken', () => {
    const { rig } = hinting();
    const queue = rig.queue('hint');
    rig.memory.setU16(queue.config.driverArea + 2, 30_000);
    queue.kick();
    expect(rig.host.brokenRings).toHaveLength(1);
    expect(rig.device.hints.phase).toBe('stopped');
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_STOP);
  });

  test('V6: no id is used again, neither before its STOP arrived nor after', () => {
    const { rig, id } = hinting();
    const ids = [id];
    ids.push(rig.device.hints.begin());
    rig.queue('hint').exchange({ out: [u32(HINT_STOP)] });
    ids.push(rig.device.hints.begin());
    rig.device.reset();
    ids.push(rig.device.hints.begin());
    expect(ids).toEqual([HINT_ID_MIN, HINT_ID_MIN + 1, HINT_ID_MIN + 2, HINT_ID_MIN + 3]);
  });

  test('V7: pages under a stale id are ignored', () => {
    const { rig, id } = hinting();
    const queue = rig.queue('hint');
    queue.exchange({ in: [page(P, 4)] });
    expect(rig.unusedPages.pages).toBe(4);
    const next = rig.device.hints.begin();
    queue.exchange({ in: [page(P + 8, 4)] });
    queue.exchange({ out: [u32(id)] });
    queue.exchange({ in: [page(P + 16, 4)] });
    expect(rig.unusedPages.pages).toBe(4);
    expect(rig.device.hints.stalePages).toBe(8);
    queue.exchange({ out: [u32(next)] });
    queue.exchange({ in: [page(P + 24, 4)] });
    expect(rig.unusedPages.pages).toBe(8);
  });

  test('V7: pages that come before any id, or after STOP, are ignored', () => {
    const rig = openRig();
    const queue = rig.queue('hint');
    queue.exchange({ in: [page(P)] });
    const id = rig.device.hints.begin();
    queue.exchange({ in: [page(P)] });
    queue.exchange({ out: [u32(id)] });
    queue.exchange({ out: [u32(HINT_STOP)] });
    queue.exchange({ in: [page(P)] });
    expect(rig.unusedPages.pages).toBe(0);
    expect(rig.device.hints.stalePages).toBe(3);
  });

  test('V8: a hinted page is not changed, so one that was modified since its id was issued is safe', () => {
    const { rig } = hinting({ memory: 'shmem' });
    rig.touch(P, 4, 0x11);
    const resident = rig.residentBytes;
    rig.queue('hint').exchange({ in: [page(P, 4)] });
    rig.touch(P + 1, 1, 0x22);
    rig.device.drain();
    expect([0, 1, 2, 3].map(index => rig.contentOf(P + index))).toEqual([0x11, 0x22, 0x11, 0x11]);
    expect(rig.residentBytes).toBe(resident);
  });

  test('V9: no hinted page is changed, or counted, after DONE', () => {
    const { rig } = hinting();
    rig.touch(P, 4, 0x33);
    rig.queue('hint').exchange({ in: [page(P, 2)] });
    rig.device.hints.done();
    rig.queue('hint').exchange({ in: [page(P + 2, 2)] });
    rig.device.drain();
    expect(rig.unusedPages.pages).toBe(2);
    expect([0, 1, 2, 3].map(index => rig.contentOf(P + index))).toEqual([0x33, 0x33, 0x33, 0x33]);
  });

  test('V10: the command is DONE when the host has finished with the hinted pages', () => {
    const { rig } = hinting();
    rig.queue('hint').exchange({ out: [u32(HINT_STOP)] });
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_STOP);
    const before = rig.host.configChanges;
    rig.device.hints.done();
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_DONE);
    expect(rig.host.configChanges).toBe(before + 1);
  });

  test('a running session is not disturbed by other changes of the configuration', () => {
    const { rig, id } = hinting();
    rig.device.targetPages = 100;
    rig.writeConfig('actual', 50);
    expect(rig.readConfig('freePageHintCommandId')).toBe(id);
    expect(rig.device.hints.phase).toBe('running');
  });

  test('the driver is interrupted for the configuration only when its command changed', () => {
    const { rig } = hinting();
    // Requested, which changed the command, and running, which did not.
    expect(rig.host.hintChanges).toBe(2);
    expect(rig.host.configChanges).toBe(1);
    rig.queue('hint').exchange({ out: [u32(HINT_STOP)] });
    expect(rig.host.configChanges).toBe(2);
  });
});

describe('reporting', () => {
  test('V11: a reported page reads as zero afterwards', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 8, 0x44);
    const resident = rig.residentBytes;
    rig.queue('reporting').exchange({ in: [page(P, 4), page(P + 6)] });
    expect(resident - rig.residentBytes).toBeGreaterThanOrEqual(4 * PAGE_SIZE);
    expect([0, 3, 4, 5, 6, 7].map(index => rig.contentOf(P + index))).toEqual([0, 0, 0x44, 0x44, 0, 0x44]);
    expect(rig.device.reporting.totals).toMatchObject({ bytes: 5 * PAGE_SIZE, punches: 2, failures: 0 });
  });

  test('V11: with PAGE_POISON and a value, a reported page keeps what it holds', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.writeConfig('poisonValue', 0xaaaaaaaa);
    rig.touch(P, 4, 0xaa);
    const resident = rig.residentBytes;
    expect(rig.queue('reporting').exchange({ in: [page(P, 4)] })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.contentOf(P)).toBe(0xaa);
    expect(rig.residentBytes).toBe(resident);
    expect(rig.device.reporting.totals.bytes).toBe(0);
  });

  test('V11: with PAGE_POISON and the value 0, a reported page is discarded, for zero is what it may hold', () => {
    const rig = openRig();
    rig.writeConfig('poisonValue', 0);
    rig.touch(P, 1, 0xaa);
    rig.queue('reporting').exchange({ in: [page(P)] });
    expect(rig.contentOf(P)).toBe(0);
  });

  test('V11: without PAGE_POISON the value of poison_val does not count', () => {
    const rig = openRig({ without: PAGE_POISON });
    rig.writeConfig('poisonValue', 0xaaaaaaaa);
    rig.touch(P, 1, 0xaa);
    rig.queue('reporting').exchange({ in: [page(P)] });
    expect(rig.contentOf(P)).toBe(0);
  });

  test('V11: a reported page is gone before its buffer is returned', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 16);
    const before = rig.residentBytes;
    let whenPublished = before;
    rig.queue('reporting').beforePublish = () => {
      whenPublished = rig.residentBytes;
    };
    rig.queue('reporting').exchange({ in: [page(P, 16)] });
    expect(whenPublished).toBeLessThanOrEqual(before - 16 * PAGE_SIZE);
  });
});

describe('MUST_TELL_HOST', () => {
  test('V12: a driver may refuse MUST_TELL_HOST: pages are discarded before they are acknowledged', () => {
    const rig = openRig({ without: MUST_TELL_HOST, memory: 'shmem' });
    expect(rig.device.inflation.acknowledgesFirst).toBe(false);
    rig.touch(P, 8);
    expect(rig.inflate([P, 8])).toHaveLength(1);
    expect(rig.pendingPages).toBe(0);
    expect(rig.contentOf(P)).toBe(0);
    // The driver uses them again without a word.
    rig.touch(P, 8, 0x55);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x55);
    expect(rig.balloonedPages).toBe(8);
  });
});

describe('used length', () => {
  test.each([
    ['split', {}],
    ['packed', packed],
  ])('is 0 for inflate, deflate, hint and reporting buffers (%s rings)', (_, rings) => {
    const { rig } = hinting(rings);
    expect(rig.inflate([P, 3])).toEqual([{ token: 0, written: 0 }]);
    expect(rig.deflate([P, 3])).toEqual([{ token: 0, written: 0 }]);
    expect(rig.queue('hint').exchange({ in: [page(P, 2)] })).toEqual([{ token: 1, written: 0 }]);
    expect(rig.queue('reporting').exchange({ in: [page(P, 2)] })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.host.badInputs).toEqual([]);
  });
});

describe('the configuration', () => {
  test('shows the target, takes `actual`, and says what the guest claims', () => {
    const rig = openRig();
    rig.device.targetPages = 1234.9;
    expect(rig.readConfig('numPages')).toBe(1234);
    expect(rig.host.configChanges).toBe(1);
    rig.device.targetPages = 1234;
    expect(rig.host.configChanges).toBe(1);
    rig.writeConfig('actual', 77);
    rig.writeConfig('actual', 77);
    expect(rig.device.actualPages).toBe(77);
    expect(rig.host.actuals).toEqual([77]);
  });

  test('bounds the target to what its 32 bits can say', () => {
    const rig = openRig();
    rig.device.targetPages = 2 ** 40;
    expect(rig.readConfig('numPages')).toBe(0xffff_ffff);
    rig.device.targetPages = -5;
    expect(rig.readConfig('numPages')).toBe(0);
  });

  test('keeps the driver from writing what is the device’s', () => {
    const rig = openRig();
    rig.device.targetPages = 9;
    rig.device.writeConfig(0, new Uint8Array(64).fill(0xff));
    expect(rig.readConfig('numPages')).toBe(9);
    expect(rig.readConfig('freePageHintCommandId')).toBe(HINT_STOP);
    expect(rig.readConfig('actual')).toBe(0xffff_ffff);
  });

  test.each(PROFILE_NAMES)('reads as zeros beyond the end of it (%s)', name => {
    const rig = openRig({ profile: name });
    rig.writeConfig('actual', 0xffff_ffff);
    const bytes = new Uint8Array(64).fill(0xee);
    rig.device.readConfig(0, bytes);
    expect(bytes.subarray(rig.profile.configBytes).every(byte => byte === 0)).toBe(true);
    rig.device.readConfig(1000, bytes);
    expect(bytes.every(byte => byte === 0)).toBe(true);
  });
});
