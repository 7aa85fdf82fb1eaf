/** A field that leaves what is called so of a long list. */
interface SiftProps {
  /** What is looked for, as `guest`. */
  readonly what: string;
  readonly value: string;
  readonly change: (value: string) => void;
}

export function Sift({ what, value, change }: SiftProps) {
  return (
    <input
      type="search"
      class="sift"
      placeholder={`Find a ${what}`}
      aria-label={`Find a ${what} by its name`}
      value={value}
      onInput={event => change(event.currentTarget.value)}
    />
  );
}
