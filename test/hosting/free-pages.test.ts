import { describe, expect, test } from 'vitest';
import type { ProfileName } from '../../src/balloon/profiles.ts';
import {
  FINISHED_WORD,
  FreePages,
  type FreePageWay,
  PAGES_WORD,
  PROGRESS_WORDS,
} from '../../src/hosting/free-pages.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { World, type WorldOptions } from '../driver/world.ts';

/** A guest whose free pages are followed, with all pages to be sent. */
async function followed(name: ProfileName, way: FreePageWay, options: WorldOptions = {}) {
  const world = new World({ profile: name, ...options });
  await world.start();
  const free = new FreePages(
    () => world.device,
    () => world.memory,
  );
  // What the daemon's guest does with what its device hears.
  const hear = world.transport.unusedPages;
  const add = hear.add.bind(hear);
  hear.add = (pfn, count) => {
    add(pfn, count);
    free.add(pfn, count);
  };
  const { slots } = new SlotBitmap(world.memory.size / 4096);
  const dirty = new SlotBitmap(slots);
  dirty.setAll();
  const progress = new Int32Array(new SharedArrayBuffer(PROGRESS_WORDS * 4));
  const words = () => new SlotBitmap(slots).words;
  free.follow({ way, dirty: dirty.words, recent: words(), ever: words(), progress });
  return { world, free, dirty, progress, skipped: () => slots - dirty.countIn() };
}

describe('the free pages of a guest that moves', () => {
  test.each<[ProfileName, FreePageWay]>([
    ['virtio', 'session'],
    ['sg', 'session'],
    ['page-bitmap', 'request'],
    ['page-chunks', 'request'],
  ])('are skipped when it is asked: profile %s', async (name, way) => {
    const { world, free, progress, skipped } = await followed(name, way);
    free.command('start');
    await world.rest();
    expect(skipped()).toBeGreaterThan(world.bootPages / 2);
    expect(progress[PAGES_WORD]).toBeGreaterThanOrEqual(skipped());
    free.finished(way);
    expect(progress[FINISHED_WORD]).toBe(1);
    free.command('stop');
    free.command('done');
    await world.rest();
    world.kernel.checkInvariants();
  });

  test.each<[ProfileName, FreePageWay]>([
    ['virtio', 'session'],
    ['page-order', 'request'],
  ])('count for nothing once they are not asked for any more: profile %s', async (name, way) => {
    const { world, free, skipped } = await followed(name, way, { device: { mode: 'deferred' } });
    free.command('start');
    // The guest has answered, and the answer is not read yet.
    world.transport.serve();
    world.transport.deliver();
    await world.promises();
    free.command('stop');
    await world.rest();
    expect(skipped()).toBe(0);
    free.command('start');
    await world.rest();
    expect(skipped()).toBeGreaterThan(0);
  });

  test('are skipped as they are reported, while a migration counts', async () => {
    const { world, free, skipped } = await followed('hinting', 'reports');
    await world.occupy('editor', 4096);
    await world.pass(5_000);
    expect(skipped()).toBe(0);
    free.command('start');
    world.exit();
    await world.pass(5_000);
    const reported = skipped();
    expect(reported).toBeGreaterThan(2048);
    free.command('stop');
    await world.occupy('editor', 4096);
    world.exit();
    await world.pass(5_000);
    expect(skipped()).toBe(reported);
  });

  test('are not skipped where the guest counts on what they hold', async () => {
    await expect(followed('virtio', 'session', { kernel: { poison: 0 } })).rejects.toThrow(
      /counts on what they hold/,
    );
  });

  test('are not followed in a way that the guest has not', async () => {
    await expect(followed('virtio', 'request')).rejects.toThrow(/its driver did not take the feature/);
    const { free } = await followed('virtio', 'session');
    free.follow(null);
    expect(() => free.command('start')).toThrow(/are not followed/);
  });
});
