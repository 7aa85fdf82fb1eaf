import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { AerostatError, assert, InvariantError, SystemError } from '../../src/sys/error.ts';
import { check, errno, libc } from '../../src/sys/libc.ts';

describe('a failed system call', () => {
  test('says which, why, and of what', () => {
    const error = new SystemError('mmap', constants.errno.ENOMEM, '4096 bytes');
    expect(error.message).toBe('mmap failed with ENOMEM: 4096 bytes');
    expect(new SystemError('close', constants.errno.EBADF).message).toBe('close failed with EBADF');
    expect(error).toMatchObject({
      name: 'SystemError',
      code: 'AEROSTAT_SYSTEM',
      syscall: 'mmap',
      errno: constants.errno.ENOMEM,
      errnoName: 'ENOMEM',
    });
    expect(error).toBeInstanceOf(AerostatError);
  });

  test('is thrown for -1 and for nothing else', () => {
    expect(check('read', 0)).toBe(0);
    expect(check('read', -2)).toBe(-2);
    expect(() => check('close', libc.close(-1), 'nothing')).toThrow('close failed with EBADF: nothing');
    libc.close(-1);
    expect(errno()).toBe(constants.errno.EBADF);
  });
});

test('every number of the kernel has its name, and others say what they are', () => {
  const nameOf = (errno: number) => new SystemError('read', errno).errnoName;
  for (const name of ['EPERM', 'ENOENT', 'EINTR', 'ENOSPC', 'EPIPE', 'ECONNREFUSED'] as const) {
    expect(nameOf(constants.errno[name])).toBe(name);
  }
  // Linux calls it EAGAIN; EWOULDBLOCK is the same number.
  expect(nameOf(constants.errno.EWOULDBLOCK)).toBe('EAGAIN');
  expect(nameOf(4711)).toBe('errno 4711');
});

test('an error keeps its class’s name, its code and its cause', () => {
  class OwnError extends AerostatError {}
  const cause = new Error('why');
  const error = new OwnError('AEROSTAT_SYSTEM', 'what', { cause });
  expect(error).toMatchObject({ name: 'OwnError', code: 'AEROSTAT_SYSTEM', message: 'what', cause });
});

test('an assertion that fails is a bug of ours, and says so', () => {
  assert(true, 'never');
  expect(() => assert(false, 'the sky fell')).toThrow(InvariantError);
  expect(() => assert(false, 'the sky fell')).toThrow('the sky fell (a bug in Aerostat; please report it)');
});
