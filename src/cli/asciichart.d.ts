// asciichart brings no types; these are the parts of it that we use.
declare module 'asciichart' {
  interface Settings {
    min?: number;
    max?: number;
    /** Rows. */
    height?: number;
    /** Terminal sequences, one a series. */
    colors?: readonly (string | undefined)[];
    format?: (value: number) => string;
  }
  const asciichart: {
    plot(series: readonly (readonly number[])[], settings?: Settings): string;
    readonly blue: string;
    readonly green: string;
    readonly yellow: string;
    readonly red: string;
  };
  export = asciichart;
}
