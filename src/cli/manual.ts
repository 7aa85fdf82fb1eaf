/**
 * The manual pages, in the language of man(7): one of the program, one of each command, made from the commands themselves,
 * and one of the files that they read.
 */
import { settings } from './configuration/settings.ts';
import { everyCommand, type OutlineCommand, type OutlineOption } from './outline.ts';

interface ManualFacts {
  readonly version: string;
  readonly exitCodes: readonly (readonly [code: string, meaning: string])[];
}

interface ManualPage {
  /** As `man` is asked for it: `aerostat-set`. */
  readonly name: string;
  readonly section: 1 | 5;
  readonly text: string;
}

/** All of them, the program's first. */
export function manualPages(program: OutlineCommand, facts: ManualFacts): readonly ManualPage[] {
  const commands = commandsOf(program);
  const names = commands.map(({ path }) => pageName(path));
  return [
    { name: program.name, section: 1, text: programPage(program, facts) },
    ...commands.map(command => ({
      name: pageName(command.path),
      section: 1 as const,
      text: commandPage(program, command, names, facts),
    })),
    { name: FILES_PAGE, section: 5, text: filesPage(facts) },
  ];
}

const FILES_PAGE = 'aerostat-files';

const pageName = (path: string): string => path.replaceAll(' ', '-');

/** Those that do something, and not those that only hold others. */
const commandsOf = (program: OutlineCommand): readonly OutlineCommand[] =>
  everyCommand(program).filter(({ commands, path }) => path !== program.name && commands.length === 0);

const titleLine = (name: string, section: 1 | 5, version: string): string =>
  `.TH ${name.toUpperCase()} ${section} "" "aerostat ${version}" "${section === 1 ? 'User Commands' : 'File Formats'}"`;

function programPage(program: OutlineCommand, { version, exitCodes }: ManualFacts): string {
  const { name } = program;
  return page([
    titleLine(name, 1, version),
    '.SH NAME',
    text(`${name} - serve, see and steer the memory of guests (virtio memory ballooning)`),
    '.SH SYNOPSIS',
    `.B ${name}`,
    text('COMMAND [OPTION]...'),
    '.SH DESCRIPTION',
    text(
      'A host takes back the memory that its guests do not need. The daemon (device) serves balloon devices to virtual machines over vhost-user; the other commands see and steer them through its HTTP API, or guests of QEMU through their monitors.',
    ),
    '.PP',
    text('Sizes are written 512M, 1.5G or 4096 (bytes), durations 500ms, 5s or 1m.'),
    '.SH COMMANDS',
    text('Each has a page of its own, with examples: aerostat-set(1) for aerostat set.'),
    ...commandsOf(program).flatMap(command => [`.SS "${synopsis(command)}"`, ...commandLines(command)]),
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(([code, meaning]) => ['.TP', `.B ${code}`, text(meaning)]),
    '.SH ENVIRONMENT',
    ...definition('AEROSTAT_API', 'Where the API is, for what has no --api.'),
    ...definition('AEROSTAT_TOKEN', 'The token itself of an API on TCP, where no --token-file is given.'),
    ...definition('AEROSTAT_RUN_DIR', "Where the daemons of systemd's units are looked for: /run/aerostat."),
    ...definition('AEROSTAT_KEEP', 'What guests outlive the daemon by, for what has no --keep.'),
    ...definition('AEROSTAT_DEBUG', 'As --verbose: when something fails, say where.'),
    ...definition('NO_COLOR', 'No colours.'),
    '.SH FILES',
    ...definition('$XDG_RUNTIME_DIR/aerostat/api.sock', 'The API, where --api says nothing else.'),
    ...definition(
      '/run/aerostat/*/api.sock',
      'The APIs of daemons that systemd runs; found where nothing else is said and the one above is not there.',
    ),
    text('aerostat-files(5) has the files of guests, of tokens and of the systemd units.'),
    '.SH EXAMPLES',
    ...example('aerostat dashboard', 'Three guests to play with, in a browser.'),
    ...example('aerostat device --socket-path /run/user/1000/vm1.sock', 'Serve a guest.'),
    ...example('aerostat set vm1 --balloon 2G --wait', 'Take two GiB from it.'),
    '.SH SEE ALSO',
    ...references(
      [FILES_PAGE, 5],
      ['aerostat-device', 1],
      ['aerostat-top', 1],
      ['qemu-system-x86_64', 1],
      ['systemd.unit', 5],
    ),
  ]);
}

function commandPage(
  program: OutlineCommand,
  command: OutlineCommand,
  names: readonly string[],
  { version, exitCodes }: ManualFacts,
): string {
  const name = pageName(command.path);
  const takesFile = command.options.some(({ long }) => long === '--config' || long === '--token-file');
  const near = names.filter(other => other !== name && other.startsWith(name.replace(/-[^-]*$/, '-')));
  return page([
    titleLine(name, 1, version),
    '.SH NAME',
    text(`${name} - ${command.description}`),
    '.SH SYNOPSIS',
    `.B ${synopsis(command)}`,
    text('[OPTION]...'),
    '.SH DESCRIPTION',
    ...commandLines(command),
    ...notes(command.notes),
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(([code, meaning]) => ['.TP', `.B ${code}`, text(meaning)]),
    '.SH SEE ALSO',
    ...references(
      [program.name, 1],
      ...(takesFile ? [[FILES_PAGE, 5] as const] : []),
      ...(command.path.split(' ').length > 2 ? near.map(other => [other, 1] as const) : []),
    ),
  ]);
}

function filesPage({ version }: ManualFacts): string {
  return page([
    titleLine(FILES_PAGE, 5, version),
    '.SH NAME',
    text(
      `${FILES_PAGE} - files that aerostat reads: its configuration, tokens, and those of its systemd units`,
    ),
    '.SH CONFIGURATION (--config)',
    text(
      'A TOML file that says where guests are, how they are served, and what the policy may do with them. Where no option names one, it is aerostat/aerostat.toml in XDG_CONFIG_HOME (~/.config), or /etc/aerostat/aerostat.toml.',
    ),
    ...verbatim([
      '[sources]',
      'qmp-dirs = ["/var/run/qemu-server"]',
      '',
      '[guests.web]',
      'socket = "/run/vms/web.sock"',
      'min = "512M"',
    ]),
    ...settings()
      .filter(({ isTable }) => !isTable)
      .flatMap(({ key, description }) => definition(key, description)),
    '.PP',
    text('Paths count from the directory of the file. aerostat config check says whether a file is right.'),
    '.SH TOKENS (--token-file)',
    text('A line for each token: TOKEN [full|read-only] [NAME]. What follows a # is a comment.'),
    text('A token has 16 characters at least, and others may not read the file. A client sends the first.'),
    ...verbatim([
      '(umask 077; openssl rand -hex 32 > token)',
      '(umask 077; echo "$(openssl rand -hex 32) read-only prometheus" > tokens)',
    ]),
    '.SH UNITS',
    ...definition('/etc/aerostat/NAME.conf', 'Options of aerostat@NAME.service: OPTIONS=--target=1G'),
    ...definition(
      '/etc/aerostat/aerostat.toml',
      'Guests of aerostat.service: a table [guests.NAME] with its socket in /run/aerostat/guests for each.',
    ),
    ...definition('/etc/aerostat/guests.conf', 'Options of aerostat.service: OPTIONS=--keep=none'),
    ...definition(
      '/var/lib/aerostat',
      'State directories of both, for the next start: what was ordered of each guest, in files that are replaced whole.',
    ),
    ...definition('/etc/aerostat/exporter.tokens', 'Tokens that may scrape aerostat-exporter.service.'),
    ...definition(
      '/etc/aerostat/exporter.conf',
      'Its options: OPTIONS=--listen=10.0.0.5:9774 --listen-remote',
    ),
    '.SH SEE ALSO',
    ...references(['aerostat', 1], ['aerostat-device', 1], ['aerostat-exporter', 1], ['systemd.exec', 5]),
  ]);
}

const page = (lines: readonly string[]): string => `${lines.join('\n')}\n`;

/** Text, with what troff would take for its own escaped. */
function text(words: string): string {
  const escaped = words.replaceAll('\\', '\\e').replaceAll('-', '\\-');
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

const definition = (term: string, meaning: string): string[] => ['.TP', `.B ${text(term)}`, text(meaning)];
const example = definition;
/** Lines as they are, in a font whose characters are all of one width. */
const verbatim = (lines: readonly string[]): string[] => [
  '.PP',
  '.nf',
  '.RS 4',
  ...lines.map(text),
  '.RE',
  '.fi',
];
const references = (...pages: readonly (readonly [name: string, section: number])[]): string[] =>
  pages.map(([name, section], at) => `.BR ${text(name)} (${section})${at === pages.length - 1 ? '' : ','}`);

function synopsis({ path, args }: OutlineCommand): string {
  const words = args.map(({ name, required }) => (required ? name.toUpperCase() : `[${name.toUpperCase()}]`));
  return text([path, ...words].join(' '));
}

function commandLines({ description, options }: OutlineCommand): string[] {
  const sentence = `${description.charAt(0).toUpperCase()}${description.slice(1)}.`;
  const own = options.filter(({ long }) => long !== '--help');
  return [text(sentence), ...own.flatMap(optionLines)];
}

function optionLines({ long, short, value, description }: OutlineOption): string[] {
  const names =
    short === undefined ? `\\fB${text(long)}\\fR` : `\\fB${text(short)}\\fR, \\fB${text(long)}\\fR`;
  return ['.TP', value === undefined ? names : `${names} \\fI${text(value)}\\fR`, text(description)];
}

/** What --help says after the options: a line that ends with a colon is a heading, what is indented stays as it is. */
function notes(words: string): string[] {
  return words.split('\n\n').flatMap(part => {
    const lines = part.split('\n').filter(line => line.trim() !== '');
    const [first = ''] = lines;
    const heading = /^\S.*:$/.test(first) && lines.length > 1;
    const head = heading ? [`.SH ${text(first.slice(0, -1).toUpperCase())}`] : ['.PP'];
    const rest = heading ? lines.slice(1) : lines;
    return [...head, ...(rest.every(line => line.startsWith(' ')) ? verbatim(rest) : rest.map(text))];
  });
}
