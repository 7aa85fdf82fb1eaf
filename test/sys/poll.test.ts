/** One thread's loop: descriptors, timers, and being woken. */
import { Worker } from 'node:worker_threads';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  createEventFd,
  createPipe,
  drainEvent,
  OwnedFd,
  openDescriptorCount,
  ring,
} from '../../src/sys/fd.ts';
import { monotonicMs, Reactor, type Readiness, type Watch, WatchGroup } from '../../src/sys/poll.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { build } from '../cli/built.ts';

const owned: { close(): void }[] = [];
const own = <T extends { close(): void }>(closable: T): T => {
  owned.push(closable);
  return closable;
};
const open = (): Reactor => own(new Reactor());
const bell = (): OwnedFd => own(createEventFd());

afterEach(() => {
  for (const closable of owned.splice(0)) closable.close();
  expect(openDescriptorCount()).toBe(0);
});

describe('a descriptor that is watched', () => {
  test('is served when it is ready, and as long as it is', () => {
    const reactor = open();
    const fd = bell();
    let calls = 0;
    reactor.watch(fd, ({ readable, writable, hungUp }) => {
      calls++;
      expect([readable, writable, hungUp]).toEqual([true, false, false]);
      if (calls === 3) drainEvent(fd);
    });
    reactor.turn(0);
    expect(calls).toBe(0);
    ring(fd);
    for (let turn = 0; turn < 5; turn++) reactor.turn(0);
    expect(calls).toBe(3);
  });

  test('tells when it can be written to only while that is wanted', () => {
    const reactor = open();
    const [near, far] = UnixSocket.pair();
    own(near);
    own(far);
    const seen: Readiness[] = [];
    const watch = reactor.watch(near.fd, readiness => seen.push(readiness));
    reactor.turn(0);
    expect([seen.length, watch.wantWrite]).toEqual([0, false]);
    watch.wantWrite = true;
    reactor.turn(0);
    expect(seen).toEqual([{ readable: false, writable: true, hungUp: false }]);
    watch.wantWrite = false;
    watch.wantWrite = false;
    reactor.turn(0);
    expect(seen).toHaveLength(1);
  });

  test('tells when its other end is gone', () => {
    const reactor = open();
    const { reader, writer } = createPipe();
    own(reader);
    own(writer);
    const seen: Readiness[] = [];
    reactor.watch(reader, readiness => seen.push(readiness));
    ring(writer);
    writer.close();
    reactor.turn(0);
    drainEvent(reader);
    reactor.turn(0);
    expect(seen).toEqual([
      { readable: true, writable: false, hungUp: true },
      { readable: false, writable: false, hungUp: true },
    ]);
  });

  test('is served no more once its watch was stopped, even by a handler of the same turn', () => {
    const reactor = open();
    const fds = [bell(), bell()];
    const served: number[] = [];
    const watches: Watch[] = fds.map((fd, index) =>
      reactor.watch(fd, () => {
        served.push(index);
        for (const watch of watches) watch.stop();
      }),
    );
    for (const fd of fds) ring(fd);
    reactor.turn(0);
    reactor.turn(0);
    expect(served).toEqual([0]);
  });

  test('is served no more once it was closed, by a handler or other code, whatever has its number then', () => {
    const reactor = open();
    const first = bell();
    const second = bell();
    const served: string[] = [];
    reactor.watch(first, () => {
      served.push('first');
      drainEvent(first);
      const { number } = second;
      second.close();
      // The next descriptor gets the number, and is ready at once.
      const heir = bell();
      expect(heir.number).toBe(number);
      ring(heir);
    });
    reactor.watch(second, () => served.push('second'));
    ring(first);
    ring(second);
    reactor.turn(0);
    reactor.turn(0);
    expect(served).toEqual(['first']);
    first.close();
    reactor.watch(bell(), () => {});
    reactor.turn(0);
    expect(served).toEqual(['first']);
  });

  test('may be watched by a handler, from the next turn on', () => {
    const reactor = open();
    const first = bell();
    const late = bell();
    ring(late);
    let served = 0;
    reactor.watch(first, () => {
      drainEvent(first);
      reactor.watch(late, () => served++);
    });
    ring(first);
    reactor.turn(0);
    expect(served).toBe(0);
    reactor.turn(0);
    expect(served).toBe(1);
  });

  test('that is closed without stopping its watch leaves the table: its heir wakes no handler', () => {
    const reactor = open();
    const first = bell();
    reactor.watch(first, () => expect.unreachable());
    reactor.turn(0);
    const { number } = first;
    first.close();
    const heir = bell();
    expect(heir.number).toBe(number);
    ring(heir);
    let due = 0;
    reactor.schedule(5, () => due++);
    // An heir that is looked at would end the wait at once, again and again.
    reactor.turn();
    expect(due).toBe(1);
  });

  test('is passed over while its group is paused, and is served when that is over', () => {
    const reactor = open();
    const group = new WatchGroup();
    const [one, other] = [bell(), bell()];
    const served: string[] = [];
    reactor.watch(one, () => {
      served.push('one');
      group.paused = true;
    });
    reactor.watch(other, () => served.push('other'), group);
    for (const fd of [one, other]) ring(fd);
    // The first pauses the second in the same turn.
    reactor.turn(0);
    reactor.turn(0);
    expect(served).toEqual(['one', 'one']);
    drainEvent(one);
    let due = 0;
    reactor.schedule(1, () => due++);
    reactor.turn();
    expect(due).toBe(1);
    group.paused = false;
    reactor.turn(0);
    expect(served).toEqual(['one', 'one', 'other']);
  });

  test('that joins a group while that is paused is passed over, too', () => {
    const reactor = open();
    const group = new WatchGroup();
    group.paused = true;
    const fd = bell();
    ring(fd);
    let served = 0;
    const watch = reactor.watch(fd, () => served++, group);
    reactor.turn(0);
    expect(served).toBe(0);
    watch.stop();
    group.paused = false;
    reactor.turn(0);
    expect(served).toBe(0);
  });

  test('has its place in the table taken by the next one', () => {
    const reactor = open();
    const shared = bell();
    // More than the table holds, one after the other.
    for (let time = 0; time < 5000; time++) reactor.watch(shared, () => {}).stop();
    const fd = bell();
    let served = 0;
    reactor.watch(fd, () => served++);
    ring(fd);
    reactor.turn(0);
    expect(served).toBe(1);
  });

  test('that the kernel does not know counts as hung up', () => {
    const reactor = open();
    const ghost = new OwnedFd(100_000);
    const seen: Readiness[] = [];
    reactor.watch(ghost, readiness => seen.push(readiness));
    reactor.turn(0);
    expect(seen).toEqual([{ readable: false, writable: false, hungUp: true }]);
    ghost.release();
  });
});

describe('timers', () => {
  test('run once, not before their time, those that are due together in order of time', () => {
    const reactor = open();
    const ran: string[] = [];
    const started = monotonicMs();
    let after = 0;
    reactor.schedule(20, () => {
      ran.push('later');
      after = monotonicMs() - started;
    });
    reactor.schedule(1, () => ran.push('soon'));
    reactor.schedule(0, () => ran.push('now'));
    reactor.schedule(3_600_000, () => expect.unreachable());
    while (monotonicMs() < started + 2);
    reactor.turn();
    // A process that had to wait for its processor may find the third one due as well.
    expect(ran.slice(0, 2)).toEqual(['now', 'soon']);
    while (ran.length < 3) reactor.turn();
    expect(after).toBeGreaterThanOrEqual(20);
    reactor.turn(0);
    expect(ran).toEqual(['now', 'soon', 'later']);
  });

  test('can be cancelled, also by one that is due with them', () => {
    const reactor = open();
    const ran: string[] = [];
    reactor.schedule(0, () => {
      ran.push('first');
      second.cancel();
    });
    const second = reactor.schedule(0, () => ran.push('second'));
    reactor.schedule(0, () => ran.push('third')).cancel();
    reactor.turn(0);
    reactor.turn(0);
    expect(ran).toEqual(['first']);
  });

  test('that schedule themselves again leave turns to others', () => {
    const reactor = open();
    const fd = bell();
    ring(fd);
    let own = 0;
    let others = 0;
    const again = (): void => {
      own++;
      reactor.schedule(0, again);
    };
    reactor.schedule(0, again);
    reactor.watch(fd, () => others++);
    for (let turn = 0; turn < 10; turn++) reactor.turn();
    expect([own, others]).toEqual([10, 10]);
  });

  test('beyond what poll can wait for are no trouble', () => {
    const reactor = open();
    reactor.schedule(1e15, () => expect.unreachable());
    reactor.schedule(Number.POSITIVE_INFINITY, () => expect.unreachable());
    ring(reactor.wakeFd);
    reactor.turn();
  });
});

describe('a loop', () => {
  beforeAll(build);

  test('waits no longer than it is told to', () => {
    const reactor = open();
    const started = monotonicMs();
    reactor.turn(5);
    expect(monotonicMs() - started).toBeGreaterThanOrEqual(4.9);
  });

  test('is woken by another thread, and waits again afterwards', async () => {
    const reactor = open();
    const code = `
      import { workerData } from 'node:worker_threads';
      import { OwnedFd, ring } from '${new URL('../../dist/sys/fd.js', import.meta.url)}';
      ring(new OwnedFd(workerData));`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
      workerData: reactor.wakeFd.number,
    });
    const ended = new Promise(resolve => worker.once('exit', resolve));
    await ended;
    // Were it not rung, this would wait for ever.
    reactor.turn();
    const started = monotonicMs();
    reactor.turn(2);
    expect(monotonicMs() - started).toBeGreaterThanOrEqual(1.9);
  });

  test('runs until it is stopped, with Node’s own loop between its turns', async () => {
    const reactor = open();
    const fd = bell();
    const order: string[] = [];
    let turns = 0;
    reactor.watch(fd, () => {
      drainEvent(fd);
      order.push('served');
      setImmediate(() => {
        order.push('immediate');
        ring(reactor.wakeFd);
      });
      Promise.resolve().then(() => order.push('promise'));
    });
    ring(fd);
    await reactor.run(() => {
      turns++;
      if (order.includes('immediate')) reactor.stop();
    });
    expect(order).toEqual(['served', 'promise', 'immediate']);
    expect(turns).toBeGreaterThanOrEqual(2);
  });

  test('on the main thread ends its waits often, so that no signal is missed that came just before one', async () => {
    const reactor = open();
    reactor.watch(bell(), () => {});
    let turns = 0;
    // Nothing becomes ready, no timer is due, and nothing rings.
    await reactor.run(() => {
      turns++;
      if (turns === 2) reactor.stop();
    });
    expect(turns).toBeGreaterThanOrEqual(2);
  });

  test('ends with what one of its handlers threw', async () => {
    const reactor = open();
    reactor.schedule(0, () => {
      throw new Error('a handler’s');
    });
    await expect(reactor.run()).rejects.toThrow('a handler’s');
  });

  test('leaves the thread to Node while it has nothing to wait for', async () => {
    const reactor = open();
    const done = reactor.run();
    // Before, the thread stood in poll(2) for ever, and nothing that comes after `run()` ever ran.
    await new Promise(resolve => setTimeout(resolve, 1));
    const fd = bell();
    const served = new Promise<void>(resolve => {
      const watch = reactor.watch(fd, () => {
        drainEvent(fd);
        watch.stop();
        resolve();
      });
    });
    ring(fd);
    await served;
    await new Promise(resolve => setTimeout(resolve, 1));
    await new Promise<void>(resolve => reactor.schedule(1, resolve));
    await new Promise(resolve => setTimeout(resolve, 1));
    reactor.stop();
    await done;
  });

  test('can be stopped before it runs, and takes its wake descriptor with it when it closes', async () => {
    const wake = createEventFd();
    const reactor = new Reactor(wake);
    reactor.stop();
    await reactor.run();
    reactor.close();
    expect(wake.open).toBe(false);
  });
});

test('the clock of all threads does not go back', () => {
  let last = monotonicMs();
  for (let time = 0; time < 1000; time++) {
    const now = monotonicMs();
    expect(now).toBeGreaterThanOrEqual(last);
    last = now;
  }
});
