import { describe, expect, it } from 'vitest';
import {
  FRONTEND_REQUEST,
  type FrontendRequest,
  faultOfShape,
  MEM_TABLE_REGIONS_MAX,
  REQUEST_SHAPES,
  requestName,
  VhostUserError,
} from '../../src/vhost-user/protocol.ts';

const shapes = Object.entries(REQUEST_SHAPES) as [
  FrontendRequest,
  NonNullable<(typeof REQUEST_SHAPES)[FrontendRequest]>,
][];

describe('the table of requests', () => {
  it('finds every request by its number, and none by a number that it does not hold', () => {
    for (const [name, code] of Object.entries(FRONTEND_REQUEST)) expect(requestName(code)).toBe(name);
    for (const code of [0, 19, 23, 44, 0xffff_ffff]) expect(requestName(code)).toBeUndefined();
  });

  it.each(shapes)('takes %s with just its size and descriptors', (name, { size, exact, descriptors }) => {
    const right = descriptors === 'one' ? 1 : 0;
    expect(faultOfShape(name, size, right)).toBeUndefined();
    if (size > 0) expect(faultOfShape(name, size - 1, right)).toMatch(/bytes of payload/);
    const longer = faultOfShape(name, size + 1, right);
    if (exact) expect(longer).toMatch(/bytes of payload/);
    else expect(longer).toBeUndefined();
    const most = { none: 0, one: 1, optional: 1, regions: MEM_TABLE_REGIONS_MAX }[descriptors];
    expect(faultOfShape(name, size, most)).toBeUndefined();
    expect(faultOfShape(name, size, most + 1)).toMatch(/descriptors/);
    if (descriptors === 'one') expect(faultOfShape(name, size, 0)).toMatch(/descriptors/);
  });

  it('refuses requests that this back-end does not serve, whatever comes with them', () => {
    for (const name of ['VRING_KICK'] as const) {
      expect(faultOfShape(name, 8, 0)).toMatch(/not supported/);
    }
  });

  it('tells errors that end the conversation from those that do not', () => {
    expect(new VhostUserError('x').fatal).toBe(false);
    expect(new VhostUserError('x', { fatal: true }).fatal).toBe(true);
    expect(new VhostUserError('x').code).toBe('AEROSTAT_VHOST_USER');
  });
});
