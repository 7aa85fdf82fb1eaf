/** `aerostat peers`: the real machines that can be tried here, and newer ones from Debian's archive. */
import { Argument, Command } from 'commander';
import type { InstallEvent } from '../../peers/debian/install.ts';
import type { ListedPeer } from '../../peers/inventory.ts';
import { PEER_NAMES, type PeerName } from '../../peers/private/catalogue.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { withVerbose } from '../options.ts';
import { type ShareBar, shareBar } from '../progress.ts';
import { formatSize } from '../size.ts';
import { renderTable } from '../table.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat peers                       what is here, and what can run on this processor
  aerostat peers install               what this machine needs for a real Linux guest
  aerostat peers install qemu linux-6.12
  aerostat peers remove --all

Peers are unpacked from the Debian mirror that this machine installs from into a directory of your cache (XDG_CACHE_HOME):
no root rights are needed, and nothing of the system changes.`;

interface PeersChoice {
  readonly json?: boolean;
}

interface RemoveChoice extends PeersChoice {
  readonly all?: boolean;
}

const names = () => new Argument('[names...]', 'which peers').choices(PEER_NAMES);

export function peersCommand(context: CliContext): Command {
  const withOptions = (command: Command) => withVerbose(command.option('--json', 'print JSON'));
  const list = new Command('list')
    .description('list peers that are here, and which of them can run')
    .action((choice: PeersChoice) => listPeers(context, choice));
  const install = new Command('install')
    .description("install peers from Debian's archive for yourself; without names, what this machine needs")
    .addArgument(names())
    .action((wanted: readonly PeerName[], choice: PeersChoice) => installPeers(context, wanted, choice));
  const remove = new Command('remove')
    .description('remove peers that were installed by this command')
    .addArgument(names())
    .option('--all', 'all of them, and what interrupted installations left')
    .action((wanted: readonly PeerName[], choice: RemoveChoice) => removePeers(context, wanted, choice));
  return new Command('peers')
    .description('real kernels and QEMUs to try the balloon with: list, install, remove')
    .addHelpText('after', EXAMPLES)
    .addCommand(withOptions(list), { isDefault: true })
    .addCommand(withOptions(install))
    .addCommand(withOptions(remove));
}

async function listPeers({ stdout }: CliContext, { json }: PeersChoice): Promise<void> {
  const [inventory, { bestGuest }, { processorFacts }] = await Promise.all([
    import('../../peers/inventory.ts'),
    import('../../demo/guest-choice.ts'),
    import('../../peers/processor.ts'),
  ]);
  const peers = inventory.listPeers();
  const installable = inventory.installablePeers();
  const guest = bestGuest();
  if (json) {
    const { stateBytes = null, amx } = processorFacts();
    return void printJson(stdout, { peers, installable, guest, processor: { stateBytes, amx } });
  }
  const lines = renderTable<ListedPeer>(
    [
      { title: 'PEER', text: peer => peer.name },
      { title: 'VERSION', text: peer => peer.version },
      { title: 'SIZE', align: 'right', text: peer => (peer.bytes === null ? '–' : formatSize(peer.bytes)) },
      { title: 'RUNS HERE', text: peer => (peer.fault === null ? 'yes' : 'no') },
      { title: 'WHERE', text: peer => peer.path },
    ],
    peers,
  );
  if (peers.length > 0) for (const line of lines) printLine(stdout, line);
  for (const { fault } of peers) if (fault !== null) printLine(stdout, `${fault}.`);
  if (installable.length > 0) {
    printLine(stdout, `Can be installed: ${installable.join(', ')} (aerostat peers install NAME).`);
  }
  printLine(stdout, `What demo and run take unless told otherwise: ${guest.why}.`);
}

async function installPeers(
  context: CliContext,
  wanted: readonly PeerName[],
  { json }: PeersChoice,
): Promise<void> {
  const { stdout, stderr, interrupt } = context;
  const [debian, inventory, { installedPeers }] = await Promise.all([
    import('../../peers/debian/install.ts'),
    import('../../peers/inventory.ts'),
    import('../../peers/private/roots.ts'),
  ]);
  const chosen = wanted.length > 0 ? [...new Set(wanted)] : inventory.neededPeers();
  const before = new Set(installedPeers().map(({ name }) => name));
  const progress = new Progress(context, await shareBar(context));
  let installed: Awaited<ReturnType<typeof debian.installPeers>> = [];
  try {
    installed = await debian.installPeers(chosen, {
      signal: interrupt,
      begin: name => progress.begin(name),
      tell: event => progress.tell(event),
    });
  } catch (error) {
    progress.end();
    const left = debian.leftoverBytes();
    if (left > 0) {
      printLine(stderr, `What was downloaded, ${formatSize(left)}, stays for the next attempt.`);
    }
    throw error;
  }
  progress.end();
  if (json) return void printJson(stdout, { installed });
  for (const { name, version, bytes } of installed) {
    const already = before.has(name) ? 'was installed before' : 'is installed';
    printLine(stdout, `${name}: ${version} ${already} (${formatSize(bytes)})`);
  }
  if (chosen.length > 0) return;
  printLine(stdout, 'This machine has what a real Linux guest needs; nothing was installed.');
}

async function removePeers(
  { stdout, stderr, interrupt }: CliContext,
  wanted: readonly PeerName[],
  { json, all }: RemoveChoice,
): Promise<void> {
  if (wanted.length === 0 && all !== true) {
    throw new UsageError(`say which peers (${PEER_NAMES.join(', ')}), or --all`);
  }
  const [debian, { installedPeers }] = await Promise.all([
    import('../../peers/debian/install.ts'),
    import('../../peers/private/roots.ts'),
  ]);
  const chosen = all ? PEER_NAMES : wanted;
  const present = installedPeers().filter(({ name }) => chosen.includes(name));
  await debian.removePeers(chosen, {
    signal: interrupt,
    tell: event => printLine(stderr, wordsOf(event)),
  });
  const removed = present.map(({ name }) => name);
  if (json) return void printJson(stdout, { removed });
  printLine(stdout, removed.length === 0 ? 'Nothing was installed.' : `Removed: ${removed.join(', ')}.`);
}

/** An event in words, for logs and for what takes no bar. */
function wordsOf(event: InstallEvent): string {
  switch (event.type) {
    case 'waiting': {
      const who = event.holder === undefined ? 'Another process' : `Process ${event.holder}`;
      return `${who} installs or removes peers; waiting until it is done (Ctrl-C ends that)`;
    }
    case 'remark':
      return event.text;
    case 'index':
      return 'reading what Debian has';
    case 'download':
      return `downloading ${event.packages} packages, ${formatSize(event.bytes)}`;
    case 'unpack':
      return `unpacking ${event.packages} packages`;
  }
}

/** How an installation goes: a bar on a terminal, else a line for each step. */
class Progress {
  readonly #stderr: CliContext['stderr'];
  readonly #bar: ShareBar | undefined;
  #name = '';
  #step: InstallEvent['type'] | undefined;

  constructor({ stderr }: CliContext, bar: ShareBar | undefined) {
    this.#stderr = stderr;
    this.#bar = bar;
  }

  begin(name: PeerName): void {
    this.#name = `${name}: `;
    this.#step = undefined;
  }

  tell(event: InstallEvent): void {
    const words = this.#name + wordsOf(event);
    const isNew = event.type !== this.#step;
    this.#step = event.type;
    if (this.#bar === undefined || event.type === 'waiting' || event.type === 'remark') {
      if (isNew) this.#print(words);
    } else if (event.type === 'download') {
      this.#bar.update(event.doneBytes, event.bytes, words);
    } else if (event.type === 'unpack') {
      this.#bar.update(event.done, event.packages, words);
    } else {
      this.#bar.update(event.percent, 100, words);
    }
  }

  end(): void {
    this.#bar?.stop();
  }

  #print(line: string): void {
    this.#bar?.stop();
    printLine(this.#stderr, line);
  }
}
