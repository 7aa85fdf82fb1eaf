import { describe, expect, it } from 'vitest';
import { PciError } from '../../../src/peers/qemu/errors.ts';
import { findPciFunction } from '../../../src/peers/qemu/pci.ts';
import { Qtest } from '../../../src/peers/qemu/qtest.ts';
import { BALLOON_DEVICE_ID, VirtioPciTransport } from '../../../src/peers/qemu/virtio-pci.ts';
import { FakeFunction, FakeQtest } from './fake-qtest.ts';

const VENDOR_CAPABILITY = 0x09;
const PAGE = 0x1000;

const word = (value: number): number[] => [0, 8, 16, 24].map(shift => (value >>> shift) & 0xff);

/** `struct virtio_pci_cap`, with a multiplier of 4 behind it. */
const region = (type: number, bar: number, offset: number, length: number): number[] => [
  ...[VENDOR_CAPABILITY, 0, 20, type, bar, 0, 0, 0],
  ...[...word(offset), ...word(length), ...word(4)],
];

/** A balloon with all its registers in BAR 2, four pages of it. */
function balloon(): FakeFunction {
  const pci = new FakeFunction(0x1af4, 0x1045)
    .addCapability(0x40, region(1, 2, 0, PAGE))
    .addCapability(0x60, region(3, 2, PAGE, 4))
    .addCapability(0x80, region(4, 2, 2 * PAGE, 16))
    .addCapability(0xa0, region(2, 2, 3 * PAGE, PAGE));
  pci.bars.set(2, 4 * PAGE);
  return pci;
}

const open = (pci: FakeFunction) => {
  const far = new FakeQtest(pci);
  return { far, opened: VirtioPciTransport.open(new Qtest(far), BALLOON_DEVICE_ID) };
};

describe('a PCI function', () => {
  it('is found by its numbers, and by nothing else', async () => {
    const qtest = new Qtest(new FakeQtest(balloon()));
    expect((await findPciFunction(qtest, ({ device }) => device === 0x1045))?.name).toBe('00:04.0');
    expect(await findPciFunction(qtest, () => false)).toBeUndefined();
    expect(await findPciFunction(new Qtest(new FakeQtest()), () => true)).toBeUndefined();
  });

  it('tells the size of its BARs, and keeps what was in them', async () => {
    const pci = balloon();
    const found = await findPciFunction(new Qtest(new FakeQtest(pci)), () => true);
    expect(await found!.sizeBar(2)).toEqual({ size: 4 * PAGE, wide: false });
    expect(pci.space.getUint32(0x18, true)).toBe(0);
    await expect(found!.sizeBar(1)).rejects.toBeInstanceOf(PciError);
  });

  it('has no capabilities when its status says so, whatever the pointer says', async () => {
    const pci = new FakeFunction(1, 2);
    pci.space.setUint8(0x34, 0x40);
    const found = await findPciFunction(new Qtest(new FakeQtest(pci)), () => true);
    expect(await found!.capabilities()).toEqual([]);
  });
});

describe('a virtio device behind PCI', () => {
  it('has its registers where its capabilities say', async () => {
    const pci = balloon();
    const { far, opened } = open(pci);
    far.answer = line => (line.startsWith('write') ? 'OK' : 'OK 0x0');
    const transport = await opened;
    const base = pci.space.getUint32(0x18, true);
    expect(base % (4 * PAGE)).toBe(0);
    // Memory and bus mastering are on, ports off.
    expect(pci.space.getUint16(0x04, true) & 0b111).toBe(0b110);
    await transport.readConfig(4, 4);
    expect(far.lines).toContain(`readl 0x${(base + 2 * PAGE + 4).toString(16)}`);
    far.answer = () => 'OK 0x3';
    const config = { size: 8, descriptorArea: 2 ** 33, driverArea: 0x2000, deviceArea: 0x3000, features: 0n };
    await transport.enableQueue(1, config);
    transport.kick(1);
    expect(far.lines.at(-1)).toBe(`writew 0x${(base + 3 * PAGE + 3 * 4).toString(16)} 0x1`);
    expect(() => transport.kick(2)).toThrow(PciError);
    await expect(transport.readConfig(12, 8)).rejects.toBeInstanceOf(PciError);
    transport.close();
  });

  it('is read again when its configuration changed meanwhile, but not for ever', async () => {
    const { far, opened } = open(balloon());
    far.answer = () => 'OK 0x0';
    const transport = await opened;
    let generation = 0;
    let changes = 3;
    far.answer = line => {
      if (!line.startsWith('readb')) return `OK 0x${generation}`;
      return `OK 0x${changes-- > 0 ? ++generation : generation}`;
    };
    expect(await transport.readConfig(0, 4)).toEqual(Uint8Array.of(3, 0, 0, 0));
    let looks = 0;
    far.answer = () => `OK 0x${(looks++ & 0xff).toString(16)}`;
    await expect(transport.readConfig(0, 4)).rejects.toThrow(/does not come to rest/);
  });

  it('tells interrupts from changes of its configuration', async () => {
    const { far, opened } = open(balloon());
    far.answer = () => 'OK 0x0';
    const transport = await opened;
    const told: string[] = [];
    transport.onInterrupt(() => told.push('queue'));
    transport.onConfigChange(() => told.push('config'));
    const isr = [1, 2, 3, 0];
    far.answer = () => `OK 0x${isr.shift()}`;
    for (let raise = 0; raise < 4; raise++) {
      far.say('IRQ raise 20\n');
      await new Promise(resolve => setImmediate(resolve));
    }
    expect(told).toEqual(['queue', 'config', 'config', 'queue']);
  });

  it.each<[string, (pci: FakeFunction) => unknown]>([
    ['that is legacy', pci => pci.space.setUint8(0x34, 0)],
    ['whose capabilities go in circles', pci => pci.space.setUint8(0x41, 0xa0)],
    ['whose capabilities lie in its header', pci => pci.space.setUint8(0x34, 0x10)],
    ['with registers beyond their BAR', pci => pci.bars.set(2, PAGE)],
    ['with registers in a BAR that is not there', pci => pci.bars.delete(2)],
    ['with registers in ports', pci => pci.bars.delete(2) && pci.space.setUint32(0x18, 0xc001, true)],
    ['with registers in a BAR of a reserved number', pci => pci.addCapability(0x40, region(1, 7, 0, PAGE))],
    ['with too few common registers', pci => pci.addCapability(0xc0, region(1, 2, 0, 8))],
  ])('is refused %s', async (_, spoil) => {
    const pci = balloon();
    spoil(pci);
    await expect(open(pci).opened).rejects.toBeInstanceOf(PciError);
  });
});
