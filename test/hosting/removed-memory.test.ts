/** What the log says of memory that is taken out of a guest with a part of its balloon in it. */
import { expect, test } from 'vitest';
import { RemovedMemory } from '../../src/hosting/removed-memory.ts';

const MIB = 2 ** 20;

function world() {
  const lines: string[] = [];
  let timers: (() => void)[] = [];
  let removedBytes = 0;
  const reactor = {
    schedule: (_: number, act: () => void) => {
      timers.push(act);
      return {
        cancel: () => {
          timers = timers.filter(timer => timer !== act);
        },
      };
    },
  };
  const news = { log: (_level: string, message: string) => void lines.push(message) };
  const removed = new RemovedMemory(() => removedBytes, news, reactor);
  return {
    lines,
    removed,
    remove: (bytes: number) => {
      removedBytes = bytes;
      removed.changed();
    },
    /** Memory has settled. */
    settle: () => {
      for (const act of timers.splice(0)) act();
    },
  };
}

test('what the balloon held in removed memory is explained once, when the memory has settled', () => {
  const { lines, remove, settle } = world();
  remove(8 * MIB);
  remove(64 * MIB);
  expect(lines).toEqual([]);
  settle();
  expect(lines).toEqual([
    'memory of the guest was removed: 64M of its balloon lie in memory that was removed, and count no more until that memory comes back',
  ]);
});

test('memory that is cut anew, and holds what it held, is not worth a line', () => {
  const { lines, remove, settle } = world();
  remove(64 * MIB);
  remove(0);
  settle();
  expect(lines).toEqual([]);
});

test('a guest that leaves with all its memory leaves no line', () => {
  const { lines, removed, remove, settle } = world();
  remove(64 * MIB);
  removed.gone();
  settle();
  expect(lines).toEqual([]);
});

test('a front-end that adds and removes the same memory again and again fills no log', () => {
  const { lines, remove, settle } = world();
  for (let time = 0; time < 1000; time++) {
    remove(time % 2 === 0 ? MIB : 0);
    settle();
  }
  expect(lines).toHaveLength(1);
});
