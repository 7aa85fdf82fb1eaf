/** Guests of several hosts under one contract. */
import { describe, expect, test } from 'vitest';
import { combinedControl } from '../../src/control/combined-control.ts';
import type { GuestEvent } from '../../src/control/contract.ts';
import { UnreachableError } from '../../src/server/client.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';

/** A host with guests, and how often it was asked for each thing. */
function host(...names: string[]) {
  const control = new FakeControl(...names.map(name => guestStatus(name)));
  const asked: string[] = [];
  const counted = new Proxy(control, {
    get: (target, property, receiver) => {
      const value = Reflect.get(target, property, receiver);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        asked.push(String(property));
        return value.apply(target, args);
      };
    },
  });
  return { control, counted, asked };
}

describe('guests of several hosts', () => {
  test('cost a host one question and one stream each, however many they are', async () => {
    const names = Array.from({ length: 70 }, (_, index) => `vm${index}`);
    const many = host(...names);
    const other = host('db');
    const combined = combinedControl([
      ...names.map(name => ({ name: `a-${name}`, control: many.counted, remoteName: name })),
      { name: 'b-db', control: other.counted, remoteName: 'db' },
    ]);
    expect((await combined.guests()).map(({ name }) => name)).toEqual([
      ...names.map(name => `a-${name}`),
      'b-db',
    ]);
    expect(Object.keys(await combined.samples())).toHaveLength(71);
    const seen: string[] = [];
    const leave = combined.subscribe(({ guest }) => seen.push(guest));
    expect(many.asked).toEqual(['guests', 'samples', 'subscribe']);
    expect(other.asked).toEqual(['guest', 'statistics', 'subscribe']);
    expect(many.control.listeners.size).toBe(1);
    many.control.emit({ type: 'target', guest: 'vm7' });
    other.control.emit({ type: 'target', guest: 'db' });
    leave();
    many.control.emit({ type: 'target', guest: 'vm7' });
    expect(seen).toEqual(['a-vm7', 'b-db']);
    expect([many.control.listeners.size, other.control.listeners.size]).toEqual([0, 0]);
  });

  test('that one host cannot tell of are listed with the reason, between the others', async () => {
    const here = host('vm1', 'vm2');
    const gone = host('vm1', 'vm2');
    gone.control.failure = new UnreachableError('no daemon listens there');
    const combined = combinedControl([
      { name: 'gone1', control: gone.counted, remoteName: 'vm1' },
      { name: 'here1', control: here.counted, remoteName: 'vm1' },
      { name: 'gone2', control: gone.counted, remoteName: 'vm2' },
      { name: 'here2', control: here.counted, remoteName: 'absent' },
    ]);
    const guests = await combined.guests();
    expect(guests.map(({ name, lastError }) => [name, lastError])).toEqual([
      ['gone1', 'no daemon listens there'],
      ['here1', null],
      ['gone2', 'no daemon listens there'],
      ['here2', expect.stringContaining('no guest is called absent')],
    ]);
    expect(Object.keys(await combined.samples())).toEqual(['here1']);
  });

  test('may be one guest under two names, and both hear of it', () => {
    const { control } = host('vm1');
    const combined = combinedControl(['left', 'right'].map(name => ({ name, control, remoteName: 'vm1' })));
    const seen: GuestEvent[] = [];
    combined.subscribe(event => seen.push(event));
    control.emit({ type: 'target', guest: 'vm1' });
    expect(seen.map(({ guest }) => guest)).toEqual(['left', 'right']);
  });
});
