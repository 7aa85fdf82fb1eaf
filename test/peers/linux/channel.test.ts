import { execFileSync } from 'node:child_process';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CommandChannel, escapeScript, parseGuestLine } from '../../../src/peers/linux/channel.ts';
import { missingPrograms, requireProgram } from '../../../src/peers/programs.ts';
import { describePeer } from '../../support/peers.ts';

/** The guest's end of a channel, played by a test. */
class FakeGuest extends Duplex {
  /** Lines that the host sent. */
  readonly heard: string[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.heard.push(...chunk.toString().trimEnd().split('\n'));
    done();
  }
  say(text: string): Promise<void> {
    this.push(text);
    return new Promise(resolve => setImmediate(resolve));
  }
}

function connect(): { guest: FakeGuest; channel: CommandChannel } {
  const guest = new FakeGuest();
  return { guest, channel: new CommandChannel(guest) };
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

describe('a command channel', () => {
  it('sends nothing before the guest is ready, then a line for each that was read', async () => {
    const { guest, channel } = connect();
    channel.start('ls');
    expect(guest.heard).toEqual([]);
    await guest.say('ready\n');
    await channel.ready;
    expect(guest.heard).toEqual(['text ls']);
    await guest.say('ready\n');
    expect(guest.heard).toEqual(['text ls', 'run 1']);
    await guest.say('ready\n');
    expect(guest.heard.length).toBe(2);
  });

  it('sends a long script in pieces that fit the guest’s terminal', async () => {
    const { guest, channel } = connect();
    const script = 'x'.repeat(10_000);
    channel.start(script);
    for (let line = 0; line < 10; line++) await guest.say('ready\n');
    expect(guest.heard.every(line => line.length < 4096)).toBe(true);
    expect(guest.heard.at(-1)).toBe('run 1');
    expect(
      guest.heard
        .slice(0, -1)
        .map(line => line.slice(5))
        .join(''),
    ).toBe(script);
  });

  it('puts output together from pieces that arrive cut anywhere, and of several commands at once', async () => {
    const { guest, channel } = connect();
    const first = channel.start('a').result;
    const second = channel.start('b').result;
    const said = `1 p 70\n2 p 71\n1 o ${base64('one\0')}\n2 o ${base64('zwei')}\n1 o ${base64('\nmore')}\n1 x 0\n2 x 7\n`;
    for (const character of said) await guest.say(character);
    expect(await first).toMatchObject({ exitCode: 0, output: 'one\0\nmore' });
    expect(await second).toMatchObject({ exitCode: 7, output: 'zwei' });
  });

  it('overhears what is not of the protocol', async () => {
    const { guest, channel } = connect();
    const { result } = channel.start('a');
    await guest.say('the kernel wrote here\n1 x zero\n9 x 0\n9 p 4\n1 o !!\n1 x 0\n');
    expect(await result).toMatchObject({ exitCode: 0, output: '' });
  });

  it('kills what is abandoned, as soon as it knows what to kill', async () => {
    const { guest, channel } = connect();
    const early = channel.start('a');
    const late = channel.start('b');
    channel.abandon(early.id, new Error('enough'));
    await expect(early.result).rejects.toThrow('enough');
    for (let line = 0; line < 4; line++) await guest.say('ready\n');
    await guest.say('1 p 70\nready\n2 p 71\n');
    expect(guest.heard.at(-1)).toBe('kill 70');
    channel.abandon(late.id, new Error('enough'));
    await expect(late.result).rejects.toThrow('enough');
    await guest.say('ready\n');
    expect(guest.heard.at(-1)).toBe('kill 71');
  });

  it('refuses everything once it failed', async () => {
    const { channel } = connect();
    const { result } = channel.start('a');
    channel.fail(new Error('gone'));
    await expect(result).rejects.toThrow('gone');
    channel.fail(new Error('again'));
    await expect(channel.ready).rejects.toThrow('gone');
    await expect(channel.start('b').result).rejects.toThrow('gone');
  });

  it('refuses scripts that no program’s argument can hold', () => {
    expect(() => escapeScript('a\0b')).toThrow(/zero byte/);
    expect(() => escapeScript('x'.repeat(200_000))).toThrow(/too long/);
  });

  it('reads any line as one of the protocol or as none', () => {
    fc.assert(fc.property(fc.string(), line => parseGuestLine(line) === undefined || line.length > 0));
  });
});

describePeer('busybox’s shell', missingPrograms('busybox'), () => {
  const shell = (script: string): string =>
    execFileSync(requireProgram('busybox'), ['sh', '-c', `printf %s $'${escapeScript(script)}'`], {
      encoding: 'utf8',
    });

  it('reads an escaped script as what it was', () => {
    expect(shell(`it's "a" \\ $HOME\n\ttest é€ %s \\n`)).toBe(`it's "a" \\ $HOME\n\ttest é€ %s \\n`);
    const text = fc.string({ unit: 'binary' }).filter(script => !script.includes('\0'));
    fc.assert(
      fc.property(text, script => shell(script) === script),
      { numRuns: 50 },
    );
  });
});
