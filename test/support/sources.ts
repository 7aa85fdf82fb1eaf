/**
 * The sources as a parser sees them: what a file exports and imports, how long its functions are. tidy.test.ts holds
 * the house's rules against this. It knows syntax only; no types are resolved.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'vite';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** A node of the syntax tree, as loosely as this file needs it. */
interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [field: string]: unknown;
}

export interface ExportedName {
  readonly name: string;
  /** Whether the file declares it itself, or hands on what another one exports. */
  readonly own: boolean;
}

export interface ImportedName {
  /** Path from the root. */
  readonly from: string;
  /** `*` where all that the file exports may be meant. */
  readonly name: string;
}

export interface SourceFunction {
  readonly name: string;
  /** With the names of all that holds it: `RemoteDaemon.#exchange`. */
  readonly path: string;
  /** The first one, from 1. */
  readonly line: number;
  readonly lines: number;
}

export interface Source {
  /** Path from the root. */
  readonly path: string;
  readonly text: string;
  readonly lines: number;
  readonly exports: readonly ExportedName[];
  readonly imports: readonly ImportedName[];
  readonly functions: readonly SourceFunction[];
}

/** All TypeScript files below these folders and files of the root. */
export function sourcesIn(...places: readonly string[]): Source[] {
  return places.flatMap(place => {
    if (/\.(ts|tsx|mjs)$/.test(place)) return [parse(place)];
    return readdirSync(join(root, place), { recursive: true, encoding: 'utf8' })
      .filter(path => /\.(ts|tsx|mjs)$/.test(path) && !path.endsWith('.d.ts'))
      .sort()
      .map(path => parse(join(place, path)));
  });
}

function parse(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8');
  const { program, errors } = parseSync(path, text);
  if (errors.length > 0) throw new Error(`${path} cannot be parsed: ${errors[0].message}`);
  const lineStarts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
  const exports: ExportedName[] = [];
  const imports: ImportedName[] = [];
  const functions: SourceFunction[] = [];
  const fileOf = (specifier: unknown): string | undefined => {
    const value = (specifier as { value?: unknown } | null)?.value;
    if (typeof value !== 'string' || !value.startsWith('.')) return undefined;
    const file = relative(root, resolve(root, dirname(path), value));
    // Scripts run what was built.
    return file.replace(/^dist\/(.*)\.js$/, 'src/$1.ts');
  };
  for (const node of program.body as unknown as Node[]) {
    readImport(node, fileOf, imports);
    readExport(node, fileOf, exports, imports);
  }
  const linesOf = (node: Node) => lineAt(lineStarts, node.end - 1) - lineAt(lineStarts, node.start) + 1;
  visit(program as unknown as Node, (node, names) => {
    const name = names.at(-1)?.replace('#', '') ?? '';
    if (isFunction(node)) {
      const line = lineAt(lineStarts, node.start) + 1;
      functions.push({ name, path: names.join('.'), line, lines: linesOf(node) });
    }
    const from = node.type === 'ImportExpression' ? fileOf(node.source) : undefined;
    if (from !== undefined) imports.push({ from, name: '*' });
  });
  return { path, text, lines: lineStarts.length - 1, exports, imports, functions };
}

type FileOf = (specifier: unknown) => string | undefined;

const nameOf = (node: unknown): string => {
  const { name, value } = node as { name?: string; value?: string };
  return name ?? value ?? '';
};

function readImport(node: Node, fileOf: FileOf, imports: ImportedName[]): void {
  if (node.type !== 'ImportDeclaration') return;
  const from = fileOf(node.source);
  if (from === undefined) return;
  for (const specifier of node.specifiers as Node[]) {
    imports.push({ from, name: specifier.type === 'ImportSpecifier' ? nameOf(specifier.imported) : '*' });
  }
}

function readExport(node: Node, fileOf: FileOf, exports: ExportedName[], imports: ImportedName[]): void {
  if (node.type !== 'ExportNamedDeclaration' && node.type !== 'ExportAllDeclaration') return;
  const from = fileOf(node.source);
  if (node.type === 'ExportAllDeclaration') {
    if (from !== undefined) imports.push({ from, name: '*' });
    return;
  }
  for (const specifier of (node.specifiers ?? []) as Node[]) {
    // What a file imported it only hands on, with or without a `from`.
    const own = from === undefined && !imports.some(({ name }) => name === nameOf(specifier.local));
    exports.push({ name: nameOf(specifier.exported), own });
    if (from !== undefined) imports.push({ from, name: nameOf(specifier.local) });
  }
  const declaration = node.declaration as Node | null;
  if (declaration === null) return;
  const declared = (declaration.declarations as Node[] | undefined)?.map(({ id }) => id) ?? [declaration.id];
  for (const id of declared) exports.push({ name: nameOf(id), own: true });
}

const isFunction = ({ type, body }: Node): boolean =>
  (type === 'FunctionDeclaration' || type === 'FunctionExpression' || type === 'ArrowFunctionExpression') &&
  body !== null;

/** Every node below, with the names that were given on the way to it: a function's last one is that of what holds it. */
function visit(
  node: Node,
  see: (node: Node, names: readonly string[]) => void,
  names: readonly string[] = [],
): void {
  const named = (node.id ?? node.key ?? {}) as Node;
  const own = nameOf(named) && `${named.type === 'PrivateIdentifier' ? '#' : ''}${nameOf(named)}`;
  const all = own === '' ? names : [...names, own];
  see(node, all);
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (typeof child === 'object' && child !== null && 'type' in child) visit(child as Node, see, all);
    }
  }
}

/** Line of a place in the text, by halving; the first is 0. */
function lineAt(lineStarts: readonly number[], offset: number): number {
  let low = 0;
  let high = lineStarts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lineStarts[middle] <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
