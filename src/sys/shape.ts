/**
 * What a value of a stranger's JSON has to be, for the rooms of the library and for data-plane threads: a saved device and
 * a saved driver. The command line and the API describe theirs with zod, which takes 6 MiB in each thread that loads it.
 * A shape looks and copies nothing: the value is what it was.
 */

/** How the values of one kind are checked. */
export interface ValueShape<T> {
  /** What is wrong with a value that came from the field `at`; null where it has this shape. */
  fault(value: unknown, at: string): string | null;
  /** For the compiler only: what a value is that has this shape. */
  readonly type?: T;
}

export type ValueOf<S> = S extends ValueShape<infer T> ? T : never;

export type Fields = Readonly<Record<string, ValueShape<unknown>>>;

export type ShapedFields<F extends Fields> = { [K in keyof F]: ValueOf<F[K]> };

function shape<T>(expected: string, isOne: (value: unknown) => boolean): ValueShape<T> {
  return { fault: (value, at) => (isOne(value) ? null : `${at}: ${expected} is expected`) };
}

/** Both bounds are possible. */
export const integer = (min: number, max: number): ValueShape<number> =>
  shape(
    `a whole number from ${min} to ${max}`,
    value => Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
  );

export const u16: ValueShape<number> = integer(0, 0xffff);
export const u32: ValueShape<number> = integer(0, 0xffff_ffff);
/** Anything that is counted: bytes, pages. */
export const naturalNumber: ValueShape<number> = integer(0, Number.MAX_SAFE_INTEGER);

export const flag: ValueShape<boolean> = shape('true or false', value => typeof value === 'boolean');

export const text = (pattern: RegExp): ValueShape<string> =>
  shape(`a text like ${pattern}`, value => typeof value === 'string' && pattern.test(value));

export const oneOf = <const T extends string | number>(values: readonly T[]): ValueShape<T> =>
  shape(`one of ${values.join(', ')}`, value => values.includes(value as T));

export const nullable = <T>(inner: ValueShape<T>): ValueShape<T | null> => ({
  fault: (value, at) => (value === null ? null : inner.fault(value, at)),
});

/** What has one shape or the other; the fault is that of the second. */
export const either = <A, B>(first: ValueShape<A>, second: ValueShape<B>): ValueShape<A | B> => ({
  fault: (value, at) => first.fault(value, at) && second.fault(value, at),
});

export const listOf = <T>(inner: ValueShape<T>, lengthMax: number): ValueShape<T[]> => ({
  fault(value, at) {
    if (!Array.isArray(value) || value.length > lengthMax)
      return `${at}: a list of at most ${lengthMax} is expected`;
    return firstFault(value, (item, index) => inner.fault(item, `${at}.${index}`));
  },
});

export const pairOf = <T>(inner: ValueShape<T>): ValueShape<[T, T]> => ({
  fault: (value, at) =>
    Array.isArray(value) && value.length !== 2
      ? `${at}: a pair is expected`
      : (listOf(inner, 2) as ValueShape<unknown>).fault(value, at),
});

/** These fields and no others. */
export const record = <F extends Fields>(fields: F): ValueShape<ShapedFields<F>> => ({
  fault(value, at) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return `${at}: an object is expected`;
    const surplus = Object.keys(value).find(name => !Object.hasOwn(fields, name));
    if (surplus !== undefined) return `${at}: ${JSON.stringify(surplus.slice(0, 64))} is not known`;
    return firstFault(Object.entries(fields), ([name, inner]) =>
      inner.fault(Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined, name),
    );
  },
});

function firstFault<T>(
  items: readonly T[],
  faultOf: (item: T, index: number) => string | null,
): string | null {
  for (const [index, item] of items.entries()) {
    const fault = faultOf(item, index);
    if (fault !== null) return fault;
  }
  return null;
}

/** Whether `value` has this shape; `refuse` throws what is wrong with it. */
export function assertShaped<T>(
  shape: ValueShape<T>,
  value: unknown,
  refuse: (fault: string) => never,
): asserts value is T {
  const fault = shape.fault(value, 'it');
  if (fault !== null) refuse(fault);
}
