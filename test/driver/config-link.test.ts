/** Either side changes its mind while the other is still being asked or told. */
import { describe, expect, it } from 'vitest';
import { CONFIG } from '../../src/balloon/config-space.ts';
import { profile } from '../../src/balloon/profiles.ts';
import { ConfigLink } from '../../src/driver/config-link.ts';
import { DriverCounters } from '../../src/driver/counters.ts';
import { heapMemory } from '../guest/guest.ts';
import { promisesSettled } from '../support/promises.ts';
import { ScriptedDevice } from './scripted-device.ts';

/** What is read is what there was when it was asked for; what is asked or told takes until {@link reply}. */
class SlowDevice extends ScriptedDevice {
  readonly written: number[] = [];
  readonly #waiting: ((failure?: Error) => void)[] = [];

  constructor() {
    super(profile('virtio'), heapMemory(1));
  }

  override async readConfig(offset: number, length: number): Promise<Uint8Array> {
    const bytes = await super.readConfig(offset, length);
    await this.#answered();
    return bytes;
  }

  override async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    this.written.push(new DataView(bytes.buffer).getUint32(0, true));
    await super.writeConfig(offset, bytes);
    await this.#answered();
  }

  /** Answers everything that waits, or fails to, and lets all follow that does. */
  async reply(failure?: Error): Promise<void> {
    await promisesSettled();
    for (const go of this.#waiting.splice(0)) go(failure);
    await promisesSettled();
  }

  #answered(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(failure => (failure === undefined ? resolve() : reject(failure)));
    });
  }
}

function link() {
  const device = new SlowDevice();
  const targets: number[] = [];
  const counters = new DriverCounters();
  const heard = { told: 0, errors: 0 };
  const config = new ConfigLink({
    transport: device,
    counters,
    configBytes: CONFIG.size,
    onRead: view => targets.push(view.getUint32(CONFIG.offset.numPages, true)),
    onTold: () => heard.told++,
    onError: () => heard.errors++,
  });
  return { device, config, targets, heard, counters };
}

describe('the configuration', () => {
  it('is read again when it changes while it is read', async () => {
    const { device, config, targets } = link();
    device.configure({ numPages: 100 });
    config.refresh();
    device.configure({ numPages: 200 });
    config.refresh();
    await device.reply();
    expect(config.idle).toBe(false);
    await device.reply();
    expect(targets).toEqual([200]);
    expect(config.idle).toBe(true);
  });

  it('is told the newest size when the last one has arrived, and none of those between', async () => {
    const { device, config, heard } = link();
    for (const actual of [1, 2, 3]) config.report(actual);
    await device.reply();
    expect(config.idle).toBe(false);
    await device.reply();
    expect(device.written).toEqual([1, 3]);
    // It knows that one.
    config.report(3);
    await device.reply();
    expect([config.idle, heard.told]).toEqual([true, 1]);
  });

  it('is told of a size that it shows wrongly, as another device does that was never told', async () => {
    const { device, config } = link();
    device.config.setUint32(CONFIG.offset.actual, 500, true);
    config.refresh();
    await device.reply();
    expect(config.idle).toBe(false);
    config.report(0);
    await device.reply();
    expect([device.actual, config.idle]).toEqual([0, true]);
  });

  it.each([
    ['answers', undefined],
    ['fails', new Error('the device is gone')],
  ])('is left alone once the link is closed, even if what was under way %s', async (_, failure) => {
    const { device, config, targets, heard, counters } = link();
    config.refresh();
    config.report(1);
    config.report(2);
    config.close();
    config.refresh();
    for (let turn = 0; turn < 3; turn++) await device.reply(failure);
    config.refresh();
    config.report(3);
    await device.reply();
    expect(device.written).toEqual([1]);
    expect(counters.configReads).toBe(1);
    expect([targets, heard]).toEqual([[], { told: 0, errors: 0 }]);
  });

  it('cannot be read or told where the device is gone, and that is heard of', async () => {
    const { device, config, heard } = link();
    config.refresh();
    config.report(1);
    await device.reply(new Error('the device is gone'));
    expect(heard).toEqual({ told: 0, errors: 2 });
  });
});
