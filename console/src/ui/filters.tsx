import type { ComponentChildren } from 'preact';
import { setQuery } from '../lib/router.ts';

interface FiltersProps {
  readonly submit?: string;
  readonly children: ComponentChildren;
}

/** The filters of a list. They become the query of the page, so that a filtered list has an address. */
export function Filters({ submit = 'Apply', children }: FiltersProps) {
  return (
    <search>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          setQuery(Object.fromEntries([...form].map(([name, value]) => [name, String(value).trim()])));
        }}
      >
        {children}
        <button type="submit" class="button" data-kind="primary">
          {submit}
        </button>
      </form>
    </search>
  );
}

interface FilterFieldProps {
  readonly label: string;
  readonly name: string;
  readonly value: string;
  readonly placeholder?: string;
  readonly wide?: boolean;
}

export function FilterField({ label, name, value, placeholder, wide = false }: FilterFieldProps) {
  return (
    <label class={wide ? 'field wide' : 'field'}>
      <span>{label}</span>
      <input
        class="input"
        type="search"
        name={name}
        defaultValue={value}
        placeholder={placeholder}
        autocomplete="off"
        dir="auto"
      />
    </label>
  );
}

/** A time in the zone of the browser. */
export function TimeField({ label, name, value }: Pick<FilterFieldProps, 'label' | 'name' | 'value'>) {
  return (
    <label class="field">
      <span>{label}</span>
      <input class="input" type="datetime-local" name={name} defaultValue={value} />
    </label>
  );
}
