/**
 * `docs/conformance.md` as the titles of the two conformance tests say it, and proposal-rules.ts; documents.test.ts holds
 * the file to it. The sections are those of VIRTIO 1.4 that a clause stands in.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { proposalSection } from './proposal-rules.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The tests that prove the clauses of each side. */
const SIDES = [
  { title: 'The driver', letter: 'D', file: 'test/driver/conformance.test.ts' },
  { title: 'The device', letter: 'V', file: 'test/device/conformance.test.ts' },
] as const;

/** Where VIRTIO 1.4 says it: the clauses of each section. */
const SECTIONS: Readonly<Record<string, readonly string[]>> = {
  '5.5.3.1': ['D1', 'D2', 'D3'],
  '5.5.3.2': ['V12'],
  '5.5.6.1': ['D4', 'D5', 'D6', 'D7', 'D8', 'D9', 'D10'],
  '5.5.6.3.1': ['D11', 'D12', 'D13', 'D14'],
  '5.5.6.3.2': ['V3', 'V4'],
  '5.5.6.5.1': ['D16', 'D17', 'D18', 'D20', 'D21', 'D24'],
  '5.5.6.5.2': ['V5', 'V6', 'V7', 'V8', 'V9', 'V10'],
  '5.5.6.6.1': ['D25', 'D26', 'D27'],
  '5.5.6.7.1': ['D28'],
  '5.5.6.7.2': ['V11'],
};

interface Clause {
  readonly number: string;
  readonly section: string;
  readonly titles: readonly string[];
}

/** A test's title, with the clauses that it proves before the colon: `D20, D21: it stops …`. */
const TITLE = /\(\s*'((?:[DV]\d+(?:, )?)+): (.*)',\s+(?:async )?\(/g;

function titlesIn(file: string): { readonly numbers: readonly string[]; readonly title: string }[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(TITLE)].map(([, numbers, title]) => ({
    numbers: numbers.split(', '),
    // What a table of cases adds to a title stands in brackets at its end.
    title: title.replace(/ \(%s\)$/, ''),
  }));
}

/** The clauses that the tests of one side prove, by their number. A test without a number proves none. */
function clausesOf({ file }: (typeof SIDES)[number]): Clause[] {
  const clauses = new Map<string, string[]>();
  for (const { numbers, title } of titlesIn(file)) {
    for (const number of numbers) clauses.set(number, [...(clauses.get(number) ?? []), title]);
  }
  return [...clauses]
    .map(([number, titles]) => ({ number, titles, section: sectionOf(number) }))
    .sort((a, b) => Number(a.number.slice(1)) - Number(b.number.slice(1)));
}

export const conformanceClauses = (): Clause[] => SIDES.flatMap(clausesOf);

function sectionOf(number: string): string {
  const found = Object.entries(SECTIONS).find(([, numbers]) => numbers.includes(number));
  if (found === undefined) throw new Error(`no section of VIRTIO is known for ${number}`);
  return found[0];
}

const rows = ({ number, section, titles }: Clause): string =>
  titles.map(title => `| ${number} | ${section} | ${title} |`).join('\n');

const table = (side: (typeof SIDES)[number]): string => `## ${side.title}

Proved by [${side.file}](../${side.file}).

| clause | VIRTIO | what is proved |
|---|---|---|
${clausesOf(side).map(rows).join('\n')}
`;

export function conformanceDocument(): string {
  return `# Conformance

What VIRTIO 1.4 demands of a traditional memory balloon device (section 5.5) and of its driver, clause by clause.
Comments in the sources cite the clauses by these numbers. The numbers are Aerostat's own: VIRTIO has none. A number
that is missing belongs to a permission, to the legacy interface, or to a demand that another clause makes as well.

This page is made from the titles of the tests by \`npx vitest run test/documents.test.ts -u\`.

${SIDES.map(table).join('\n')}
${proposalSection()}`;
}
