/**
 * TOML with the place of everything in it: text against a schema, and each error with its line and column. What the values
 * mean is schema.ts's.
 */
import { type AST, getStaticTOMLValue, ParseError, parseTOML } from 'toml-eslint-parser';
import type { z } from 'zod';
import { AerostatError } from '../../sys/error.ts';

/** Raised for a configuration that is refused; the one before it stays in force. */
export class ConfigurationError extends AerostatError {
  /** One line for each error: `aerostat.toml:3:7: …`. */
  constructor(errors: readonly string[], options?: ErrorOptions) {
    super('AEROSTAT_CONFIG', errors.join('\n'), options);
  }
}

export type Keys = readonly PropertyKey[];

/** What is wrong, and the keys of where. */
export type Fault = readonly [keys: Keys, message: string];

export interface TomlPlace {
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}

interface Checked<Value> {
  readonly value: Value;
  /** Where `keys` stand, or the nearest thing around them; undefined where the file says nothing of them. */
  placeOf(keys: Keys): TomlPlace | undefined;
}

/**
 * `contradictions` are faults of values that are right one by one.
 * @throws ConfigurationError with all errors, each with its place
 */
export function checkToml<Value>(
  path: string,
  text: string,
  schema: z.ZodType<Value>,
  contradictions: (value: Value) => readonly Fault[],
): Checked<Value> {
  const ast = parse(path, text);
  const places = placesIn(ast);
  const at = ([keys, message]: Fault): string => {
    const { line, column } = nearestPlace(places, keys);
    const subject = keys.length === 0 ? '' : `${keys.map(String).join('.')}: `;
    return `${path}:${line}:${column}: ${subject}${message}`;
  };
  const checked = schema.safeParse(getStaticTOMLValue(ast));
  const faults = checked.success ? contradictions(checked.data) : checked.error.issues.flatMap(faultsOf);
  if (faults.length > 0 || !checked.success) throw new ConfigurationError(faults.map(at));
  return { value: checked.data, placeOf: keys => places.get(keyOf(keys)) };
}

/** Of a choice between shapes, the faults of the shape that comes nearest: the one with the fewest. */
function faultsOf(issue: z.core.$ZodIssue): Fault[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key): Fault => [[...issue.path, key], 'there is no such setting']);
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const [nearest] = [...issue.errors].sort((a, b) => depthOf(b) - depthOf(a) || a.length - b.length);
    return nearest.flatMap(inner => faultsOf({ ...inner, path: [...issue.path, ...inner.path] }));
  }
  return [[issue.path, issue.message]];
}

const depthOf = (issues: readonly z.core.$ZodIssue[]): number =>
  Math.max(...issues.map(({ path, code }) => path.length + (code === 'unrecognized_keys' ? 1 : 0)));

function parse(path: string, text: string): AST.TOMLProgram {
  try {
    return parseTOML(text);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const message = error.message.charAt(0).toLowerCase() + error.message.slice(1);
    throw new ConfigurationError([`${path}:${error.lineNumber}:${error.column + 1}: ${message}`], {
      cause: error,
    });
  }
}

const keyOf = (keys: Keys): string => JSON.stringify(keys.map(String));

/** Where each key is, by its path. */
function placesIn(ast: AST.TOMLProgram): ReadonlyMap<string, TomlPlace> {
  const places = new Map<string, TomlPlace>();
  const note = (keys: Keys, { line, column }: AST.TOMLNode['loc']['start']) => {
    if (!places.has(keyOf(keys))) places.set(keyOf(keys), { line, column: column + 1 });
  };
  const pair = ({ key, value }: AST.TOMLKeyValue, above: Keys) => {
    let path = above;
    for (const part of key.keys) {
      path = [...path, part.type === 'TOMLBare' ? part.name : part.value];
      note(path, part.loc.start);
    }
    content(value, path);
  };
  const content = (node: AST.TOMLContentNode, path: Keys): void => {
    if (node.type === 'TOMLInlineTable') for (const inner of node.body) pair(inner, path);
    if (node.type !== 'TOMLArray') return;
    for (const [index, element] of node.elements.entries()) {
      note([...path, index], element.loc.start);
      content(element, [...path, index]);
    }
  };
  for (const node of ast.body[0].body) {
    if (node.type === 'TOMLKeyValue') {
      pair(node, []);
      continue;
    }
    for (let length = 1; length <= node.resolvedKey.length; length++) {
      note(node.resolvedKey.slice(0, length), node.loc.start);
    }
    for (const inner of node.body) pair(inner, node.resolvedKey);
  }
  return places;
}

/** The place of what has it, or of the nearest thing around it. */
function nearestPlace(places: ReadonlyMap<string, TomlPlace>, keys: Keys): TomlPlace {
  for (let length = keys.length; length > 0; length--) {
    const place = places.get(keyOf(keys.slice(0, length)));
    if (place !== undefined) return place;
  }
  return { line: 1, column: 1 };
}
