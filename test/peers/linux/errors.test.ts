import { describe, expect, it } from 'vitest';
import { GuestBootError, GuestEndedError, hostAdvice, panicLine } from '../../../src/peers/linux/errors.ts';

const PANIC = 'Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100';
const noise = Array.from({ length: 40 }, (_, line) => `line ${line}`).join('\n');

describe('a guest’s error', () => {
  it('quotes the panic with what led to it', () => {
    const error = new GuestEndedError('it ended', `${noise}\ncause\r\n${PANIC}\r\n${noise}`);
    expect(error.message).toContain(`cause\n${PANIC}\nline 0`);
    expect(error.message).not.toContain('line 20\n');
    expect(error.consoleTail).toContain('line 20\n');
    expect(panicLine(error.consoleTail)).toBe(PANIC);
  });

  it('quotes the kernel’s complaints when a boot failed without a panic, else its last lines', () => {
    const complaint = 'virtio-uml: probe of virtio-uml.0 failed with error -32';
    expect(new GuestBootError('no', `${complaint}\n${noise}`).message).toBe(
      `no\nFrom its console:\n${complaint}`,
    );
    expect(new GuestBootError('no', noise).message).toContain('line 39');
    expect(new GuestBootError('no').message).toBe('no');
  });

  it('spares its reader the console of a guest that was ended on purpose', () => {
    expect(new GuestEndedError('it was shut down', noise).message).toBe('it was shut down');
  });

  it.each([
    [
      'Checking PROT_EXEC mmap in /x...Operation not permitted\n/x must be not mounted noexec',
      /mounted noexec/,
    ],
    ['Bus error - the host /dev/shm or /tmp mount likely just ran out of space', /is full/],
    ['check_ptrace : ptrace failed: Operation not permitted', /SYS_PTRACE/],
  ])('says what to do about %j', (console, advice) => {
    expect(hostAdvice(console)).toMatch(advice);
  });

  it('has no advice for a healthy console', () => {
    expect(hostAdvice('Checking PROT_EXEC mmap in /dev/shm...OK\nptrace...OK')).toBeUndefined();
  });
});
