/** `docs/configuration.md` as the schema of the configuration says it; documents.test.ts holds the file to it. */
import { type Setting, settings, tomlOf } from '../../src/cli/configuration/settings.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|');

function row({ key, type, description, fallback, example }: Setting): string {
  const words = [type, fallback === undefined ? '–' : `\`${tomlOf(fallback)}\``];
  const shown = example === undefined ? '–' : `\`${example}\``;
  return `| \`${key.split('.').at(-1)}\` | ${words.map(cell).join(' | ')} | ${cell(description)} | ${cell(shown)} |`;
}

function section({ key, description }: Setting, all: readonly Setting[]): string {
  const table = key === 'guests' ? 'guests.NAME' : key;
  const values = all.filter(
    setting => !setting.isTable && setting.key.split('.').slice(0, -1).join('.') === table,
  );
  return `## \`[${table}]\`

${description}

| setting | type | default | meaning | example |
|---|---|---|---|---|
${values.map(row).join('\n')}
`;
}

export function configurationDocument(): string {
  const all = settings();
  return `# The configuration

One file in TOML says where guests are, how \`aerostat device\` serves them, and what the policy may do with them. Every
command that looks after guests takes it by \`--config FILE\` or \`AEROSTAT_CONFIG\`. Where neither says anything, and no
option names guests, the first of these that exists is taken: \`aerostat/aerostat.toml\` in \`XDG_CONFIG_HOME\`
(\`~/.config\`), and \`/etc/aerostat/aerostat.toml\`.

\`\`\`toml
[sources]
daemons = ["/run/aerostat/guests/api.sock", { api = "host2:8080", token-file = "host2.token" }]
qmp-dirs = ["/var/run/qemu-server"]
libvirt = ["qemu:///system"]

[policy]
reserve = "2G"

[guests.web]
socket = "/run/vms/web.sock"
min = "512M"
shares = 2000

[guests.db]
qmp = "/run/qemu/db.qmp"
mode = "hold"
\`\`\`

- \`aerostat config check\` says whether a file is right. A file with an error is refused whole; every error has its file,
  line and column.
- \`aerostat config show\` prints every setting in force, and the line that it comes from.
  \`aerostat config explain policy.reserve\` says what a setting means.
- \`aerostat status\`, \`top\`, \`watch\`, \`set\`, \`dashboard\`, \`doctor\` and \`exporter\` show the guests of all sources in one
  list. A guest is called as its source calls it. Guests with one name in several sources are called SOURCE/NAME. A
  source that does not answer within four seconds costs its own guests, and has a row with the reason.
- \`aerostat device\` serves the guests that have a \`socket\`. \`SIGHUP\` reads the file anew: guests that are new are
  served, guests that are gone are served no more once their front-end has left, and no guest that runs loses its
  device. A file with an error changes nothing, and the log says why.
- \`aerostat policy run\` steers the guests of all sources. \`SIGHUP\` or \`aerostat policy reload\` takes the settings of the
  policy anew.
- Paths count from the directory of the file. Sizes are written \`"512M"\` or \`"1.5G"\`, durations \`"500ms"\` or \`"2s"\`.
- \`packaging/aerostat.schema.json\` is the schema for editors: \`#:schema ./aerostat.schema.json\` in the first line.

This page is made from the schema in \`src/cli/configuration/schema.ts\` by
\`npx vitest run test/documents.test.ts --update\`.

${all
  .filter(({ isTable }) => isTable)
  .map(table => section(table, all))
  .join('\n')}`;
}
