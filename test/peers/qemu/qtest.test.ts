import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QtestError } from '../../../src/peers/qemu/errors.ts';
import { Qtest } from '../../../src/peers/qemu/qtest.ts';
import { FakeQtest } from './fake-qtest.ts';

function connected(answer: (line: string) => string = () => 'OK') {
  const far = new FakeQtest();
  far.answer = answer;
  return { far, qtest: new Qtest(far) };
}

describe('qtest', () => {
  it('answers many commands that are under way at once, each with its own', async () => {
    const { qtest } = connected(line => `OK ${line.split(' ')[1]}`);
    const answers = await Promise.all(Array.from({ length: 500 }, (_, index) => qtest.readl(index)));
    expect(answers).toEqual(Array.from({ length: 500 }, (_, index) => index));
  });

  it('tells interrupts apart from answers, however the stream is cut', async () => {
    const { far, qtest } = connected(() => '');
    const changes: unknown[] = [];
    qtest.onInterruptLine(change => changes.push(change));
    const read = qtest.readb(0x10);
    for (const piece of ['IRQ rai', 'se 20\nO', 'K 0x0', '3\nIRQ lower 20\n']) far.say(piece);
    expect(await read).toBe(3);
    expect(changes).toEqual([
      { raised: true, line: 20 },
      { raised: false, line: 20 },
    ]);
  });

  it('rejects a command that QEMU refuses, and goes on', async () => {
    const { qtest } = connected(line => (line === 'bad' ? 'FAIL Unknown command' : 'OK 0x7'));
    await expect(qtest.command('bad')).rejects.toThrow(/QEMU refused bad: FAIL Unknown command/);
    expect(await qtest.readw(0)).toBe(7);
  });

  it('ends when a command is refused that no caller waits for', async () => {
    const { qtest } = connected(() => 'FAIL');
    qtest.writel(0, 1);
    expect(await qtest.ended).toBeInstanceOf(QtestError);
    await expect(qtest.readl(0)).rejects.toBeInstanceOf(QtestError);
    qtest.writel(0, 1);
  });

  it.each([
    ['an answer to nothing', 'OK\n'],
    ['a line without end', 'x'.repeat(2 ** 20)],
  ])('ends when it is sent %s', async (_, text) => {
    const { far, qtest } = connected();
    far.say(text);
    expect(await qtest.ended).toBeInstanceOf(QtestError);
    expect(qtest.open).toBe(false);
  });

  it('rejects what is under way when QEMU goes', async () => {
    const { far, qtest } = connected(() => '');
    const reads = Promise.allSettled([qtest.readl(0), qtest.read(0, 200_000)]);
    far.destroy();
    for (const result of await reads) expect(result).toMatchObject({ status: 'rejected' });
  });

  it('refuses numbers that are none', async () => {
    const { qtest } = connected(() => 'OK soup');
    await expect(qtest.readl(0)).rejects.toBeInstanceOf(QtestError);
  });

  it('reads and writes memory of any length in pieces', async () => {
    const memory = new Uint8Array(300_000);
    const { qtest } = connected(line => {
      const [verb, address, length, data] = line.split(' ');
      if (verb === 'b64read') {
        return `OK ${Buffer.from(memory.subarray(Number(address), Number(address) + Number(length))).toString('base64')}`;
      }
      if (verb === 'b64write') memory.set(Buffer.from(data, 'base64'), Number(address));
      return 'OK';
    });
    const range = fc.tuple(fc.nat(100_000), fc.integer({ min: 0, max: 200_000 }), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(range, async ([address, length, seed]) => {
        const bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + seed) & 0xff);
        qtest.write(address, bytes);
        expect(Buffer.from(await qtest.read(address, length)).equals(bytes)).toBe(true);
      }),
      { numRuns: 20 },
    );
  });
});
