/**
 * A modern virtio device behind PCI (VIRTIO 1.4, 4.1) as a transport for our driver: its registers through
 * qtest, its interrupt by the INTx line. Where the registers are, the device's capabilities say. What kind
 * of device it is, the driver knows.
 */

import { Listeners } from '../../sys/listeners.ts';
import { struct } from '../../sys/struct.ts';
import type { QueueConfig } from '../../virtio/queue.ts';
import type { InterruptedQueue, VirtioTransport } from '../../virtio/transport.ts';
import { PciError } from './errors.ts';
import { BAR_COUNT, findPciFunction, type PciFunction } from './pci.ts';
import type { Qtest } from './qtest.ts';

const VIRTIO_VENDOR = 0x1af4;
/** A modern device's PCI device id is this plus its virtio device id (4.1.2). */
const MODERN_DEVICE_BASE = 0x1040;
export const BALLOON_DEVICE_ID = 5;

const CAPABILITY_VENDOR = 0x09;

/** `struct virtio_pci_cap`, with what follows it in the capability for notifications (4.1.4, 4.1.4.4). */
const CAPABILITY = struct('virtio_pci_notify_cap', 20, {
  id: ['u8', 0],
  next: ['u8', 1],
  length: ['u8', 2],
  type: ['u8', 3],
  bar: ['u8', 4],
  regionOffset: ['u32', 8],
  regionLength: ['u32', 12],
  notifyOffsetMultiplier: ['u32', 16],
});

const CAPABILITY_TYPE = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4 } as const;

/** `struct virtio_pci_common_cfg` (4.1.4.3). 64-bit fields are written as halves (4.1.3.1). */
const COMMON_FIELDS = {
  deviceFeatureSelect: ['u32', 0],
  deviceFeature: ['u32', 4],
  driverFeatureSelect: ['u32', 8],
  driverFeature: ['u32', 12],
  configMsixVector: ['u16', 16],
  queueCount: ['u16', 18],
  deviceStatus: ['u8', 20],
  configGeneration: ['u8', 21],
  queueSelect: ['u16', 22],
  queueSize: ['u16', 24],
  queueMsixVector: ['u16', 26],
  queueEnable: ['u16', 28],
  queueNotifyOffset: ['u16', 30],
  queueDescriptorAreaLow: ['u32', 32],
  queueDescriptorAreaHigh: ['u32', 36],
  queueDriverAreaLow: ['u32', 40],
  queueDriverAreaHigh: ['u32', 44],
  queueDeviceAreaLow: ['u32', 48],
  queueDeviceAreaHigh: ['u32', 52],
} as const;
const COMMON = struct('virtio_pci_common_cfg', 56, COMMON_FIELDS);
type CommonField = keyof typeof COMMON_FIELDS;

const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/** Above all RAM below 4 GiB that PC machines have, and below their interrupt controllers. */
const BAR_AREA_START = 0xe000_0000;
const BAR_AREA_END = 0xfe00_0000;
/** A device whose configuration changes at every look is broken. */
const CONFIG_READS_MAX = 100;
/** A reset is over when the status reads 0 (4.1.4.3.2). QEMU's is over at once. */
const RESET_READS_MAX = 1000;
/** What the interrupt controller of PC machines is called in QEMU's object model. */
const INTERRUPT_CONTROLLER = 'ioapic';

interface Registers {
  readonly common: number;
  readonly isr: number;
  readonly device: number;
  readonly deviceBytes: number;
  readonly notify: number;
  readonly notifyBytes: number;
  readonly notifyOffsetMultiplier: number;
}

interface Region {
  readonly bar: number;
  readonly offset: number;
  readonly length: number;
  readonly notifyOffsetMultiplier: number;
}

/** For each type the first capability that can be used, as the device prefers (4.1.4.1). */
async function findRegions(pci: PciFunction): Promise<Map<number, Region>> {
  const regions = new Map<number, Region>();
  for (const { id, bytes } of await pci.capabilities()) {
    if (id !== CAPABILITY_VENDOR || bytes.byteLength < CAPABILITY.size) continue;
    const { type, bar, regionOffset, regionLength, notifyOffsetMultiplier } = CAPABILITY.read(bytes);
    if (bar >= BAR_COUNT || regions.has(type)) continue; // Reserved numbers are to be ignored.
    regions.set(type, { bar, offset: regionOffset, length: regionLength, notifyOffsetMultiplier });
  }
  return regions;
}

/** Gives every BAR that a region lies in an address; returns those addresses by BAR. */
async function placeBars(pci: PciFunction, regions: Iterable<Region>): Promise<Map<number, number>> {
  const sizes = new Map<number, number>();
  const addresses = new Map<number, number>();
  let next = BAR_AREA_START;
  for (const { bar, offset, length } of regions) {
    if (!addresses.has(bar)) {
      const shape = await pci.sizeBar(bar);
      // BARs are aligned to their size (PCI 3.0, 6.2.5.1).
      const address = Math.ceil(next / shape.size) * shape.size;
      if (address + shape.size > BAR_AREA_END) throw new PciError(`BAR ${bar} of ${pci.name} is too large`);
      pci.placeBar(bar, address, shape);
      next = address + shape.size;
      sizes.set(bar, shape.size);
      addresses.set(bar, address);
    }
    if (offset + length > sizes.get(bar)!)
      throw new PciError(`a region of ${pci.name} exceeds its BAR ${bar}`);
  }
  return addresses;
}

async function mapRegisters(pci: PciFunction): Promise<Registers> {
  const regions = await findRegions(pci);
  const need = (type: number, name: string): Region => {
    const region = regions.get(type);
    if (region === undefined)
      throw new PciError(`${pci.name} has no ${name} registers; is it a legacy device?`);
    return region;
  };
  const common = need(CAPABILITY_TYPE.COMMON, 'common');
  const isr = need(CAPABILITY_TYPE.ISR, 'interrupt status');
  const notify = need(CAPABILITY_TYPE.NOTIFY, 'notification');
  const device = need(CAPABILITY_TYPE.DEVICE, 'device configuration');
  if (common.length < COMMON.size) throw new PciError(`the common registers of ${pci.name} are too short`);
  const bars = await placeBars(pci, [common, isr, notify, device]);
  const addressOf = ({ bar, offset }: Region): number => bars.get(bar)! + offset;
  return {
    common: addressOf(common),
    isr: addressOf(isr),
    device: addressOf(device),
    deviceBytes: device.length,
    notify: addressOf(notify),
    notifyBytes: notify.length,
    notifyOffsetMultiplier: notify.notifyOffsetMultiplier,
  };
}

export class VirtioPciTransport implements VirtioTransport {
  readonly description: string;
  readonly ended: Promise<Error>;
  readonly #qtest: Qtest;
  readonly #registers: Registers;
  /** Where to write for a kick, by queue; known once a queue is configured. */
  readonly #doorbells = new Map<number, number>();
  readonly #interruptListeners = new Listeners<[queue: InterruptedQueue]>();
  readonly #configListeners = new Listeners<[]>();
  readonly #stopListening: () => void;
  #readingIsr = false;
  #interruptMissed = false;

  private constructor(qtest: Qtest, pci: PciFunction, registers: Registers) {
    this.#qtest = qtest;
    this.#registers = registers;
    this.description = `QEMU's virtio device ${pci.name}`;
    this.ended = qtest.ended;
    this.#stopListening = qtest.onInterruptLine(({ raised }) => {
      if (raised) void this.#readIsr();
    });
  }

  /**
   * Finds the first virtio device with this id on bus 0, gives it addresses and wakes it up. Takes
   * ownership of the connection, also when it throws.
   * @throws PciError when there is none that can be used, QtestError when QEMU goes away
   */
  static async open(qtest: Qtest, deviceId: number): Promise<VirtioPciTransport> {
    try {
      const device = MODERN_DEVICE_BASE + deviceId;
      const pci = await findPciFunction(qtest, ids => ids.vendor === VIRTIO_VENDOR && ids.device === device);
      if (pci === undefined)
        throw new PciError(`there is no modern virtio device with id ${deviceId} on bus 0`);
      await pci.disable();
      const registers = await mapRegisters(pci);
      await qtest.interceptInterrupts(INTERRUPT_CONTROLLER);
      const transport = new VirtioPciTransport(qtest, pci, registers);
      await pci.enable();
      return transport;
    } catch (error) {
      qtest.close();
      throw error;
    }
  }

  async reset(): Promise<void> {
    this.#write('deviceStatus', 0);
    for (let reads = 0; reads < RESET_READS_MAX; reads++) {
      if ((await this.#read('deviceStatus')) === 0) return;
    }
    throw new PciError(`${this.description} does not come out of its reset`);
  }

  readStatus(): Promise<number> {
    return this.#read('deviceStatus');
  }

  async writeStatus(status: number): Promise<void> {
    this.#write('deviceStatus', status);
    await this.#qtest.settle();
  }

  async getFeatures(): Promise<bigint> {
    // Select and read leave together, so both halves can be under way at once.
    const [low, high] = await Promise.all(
      [0, 1].map(half => {
        this.#write('deviceFeatureSelect', half);
        return this.#read('deviceFeature');
      }),
    );
    return (BigInt(high) << 32n) | BigInt(low);
  }

  async setFeatures(features: bigint): Promise<void> {
    for (const half of [0, 1]) {
      this.#write('driverFeatureSelect', half);
      this.#write('driverFeature', Number((features >> BigInt(32 * half)) & 0xffff_ffffn));
    }
    await this.#qtest.settle();
  }

  /** Queues that the device has, used or not. */
  queueCount(): Promise<number> {
    return this.#read('queueCount');
  }

  queueSizeMax(index: number): Promise<number> {
    this.#write('queueSelect', index);
    return this.#read('queueSize');
  }

  async enableQueue(index: number, config: QueueConfig): Promise<void> {
    this.#write('queueSelect', index);
    this.#write('queueSize', config.size);
    this.#write64('queueDescriptorAreaLow', 'queueDescriptorAreaHigh', config.descriptorArea);
    this.#write64('queueDriverAreaLow', 'queueDriverAreaHigh', config.driverArea);
    this.#write64('queueDeviceAreaLow', 'queueDeviceAreaHigh', config.deviceArea);
    const notifyOffset = this.#read('queueNotifyOffset');
    this.#write('queueEnable', 1);
    const { notify, notifyBytes, notifyOffsetMultiplier } = this.#registers;
    const offset = (await notifyOffset) * notifyOffsetMultiplier;
    if (offset + 2 > notifyBytes)
      throw new PciError(`${this.description} wants queue ${index} notified at no place`);
    this.#doorbells.set(index, notify + offset);
  }

  kick(index: number): void {
    const doorbell = this.#doorbells.get(index);
    if (doorbell === undefined)
      throw new PciError(`queue ${index} of ${this.description} was kicked before its time`);
    this.#qtest.writew(doorbell, index);
  }

  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    this.#checkConfig(offset, length);
    for (let reads = 0; reads < CONFIG_READS_MAX; reads++) {
      const [before, bytes, after] = await Promise.all([
        this.#read('configGeneration'),
        this.#readDevice(offset, length),
        this.#read('configGeneration'),
      ]);
      if (before === after) return bytes;
    }
    throw new PciError(`the configuration of ${this.description} does not come to rest`);
  }

  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    this.#checkConfig(offset, bytes.length);
    const { device } = this.#registers;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (const [at, width] of fieldsOf(offset, bytes.length)) {
      if (width === 4) this.#qtest.writel(device + offset + at, view.getUint32(at, true));
      else this.#qtest.writeb(device + offset + at, view.getUint8(at));
    }
    await this.#qtest.settle();
  }

  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void {
    return this.#interruptListeners.add(listener);
  }

  onConfigChange(listener: () => void): () => void {
    return this.#configListeners.add(listener);
  }

  close(): void {
    this.#stopListening();
    this.#interruptListeners.clear();
    this.#configListeners.clear();
    this.#qtest.close();
  }

  /**
   * Reading the interrupt status clears it and lowers the line (4.1.4.5); a rise meanwhile means reading
   * again.
   */
  async #readIsr(): Promise<void> {
    this.#interruptMissed = true;
    if (this.#readingIsr) return;
    this.#readingIsr = true;
    try {
      while (this.#interruptMissed) {
        this.#interruptMissed = false;
        const isr = await this.#qtest.readb(this.#registers.isr);
        if ((isr & ISR_CONFIG) !== 0) this.#configListeners.emit();
        if ((isr & ISR_QUEUE) !== 0) this.#interruptListeners.emit(null);
      }
    } catch {
      // The connection ended, which `ended` tells.
    } finally {
      this.#readingIsr = false;
    }
  }

  async #readDevice(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    const { device } = this.#registers;
    const reads = fieldsOf(offset, length).map(async ([at, width]) => {
      if (width === 4) view.setUint32(at, await this.#qtest.readl(device + offset + at), true);
      else view.setUint8(at, await this.#qtest.readb(device + offset + at));
    });
    await Promise.all(reads);
    return bytes;
  }

  #checkConfig(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.#registers.deviceBytes) return;
    throw new PciError(`${this.description} has no configuration at ${offset} + ${length}`);
  }

  #read(field: CommonField): Promise<number> {
    const address = this.#registers.common + COMMON.offset[field];
    switch (COMMON_FIELDS[field][0]) {
      case 'u8':
        return this.#qtest.readb(address);
      case 'u16':
        return this.#qtest.readw(address);
      case 'u32':
        return this.#qtest.readl(address);
    }
  }

  #write(field: CommonField, value: number): void {
    const address = this.#registers.common + COMMON.offset[field];
    switch (COMMON_FIELDS[field][0]) {
      case 'u8':
        this.#qtest.writeb(address, value);
        break;
      case 'u16':
        this.#qtest.writew(address, value);
        break;
      case 'u32':
        this.#qtest.writel(address, value);
    }
  }

  #write64(low: CommonField, high: CommonField, value: number): void {
    this.#write(low, value % 2 ** 32);
    this.#write(high, Math.floor(value / 2 ** 32));
  }
}

/**
 * Cuts configuration space into accesses: 32 bits wide where they are aligned, which is what the fields of
 * a balloon are (4.1.3.1 wants every field accessed in its own width), and bytes elsewhere.
 */
function fieldsOf(offset: number, length: number): (readonly [at: number, width: 1 | 4])[] {
  const fields: (readonly [number, 1 | 4])[] = [];
  let at = 0;
  while (at < length) {
    const width = (offset + at) % 4 === 0 && length - at >= 4 ? 4 : 1;
    fields.push([at, width]);
    at += width;
  }
  return fields;
}
