import type { ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Failure } from '../ui/state.tsx';

/** A component whose code is fetched when it is first shown. */
export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  let loaded: ComponentType<Props> | undefined;
  return function Lazy(props: Props) {
    const [state, setState] = useState<{ error?: unknown; attempt: number }>({ attempt: 0 });
    const Loaded = loaded;
    useEffect(() => {
      if (loaded) return;
      let wanted = true;
      load().then(
        (component) => {
          loaded = component;
          if (wanted) setState(({ attempt }) => ({ attempt: attempt + 1 }));
        },
        (error: unknown) => wanted && setState(({ attempt }) => ({ attempt, error })),
      );
      return () => {
        wanted = false;
      };
    }, []);
    if (Loaded) return <Loaded {...props} />;
    // After an upgrade of the gateway the old file no longer exists.
    if (state.error !== undefined) return <Failure error={state.error} retry={() => location.reload()} />;
    return (
      <div class="state" role="status">
        Loading …
      </div>
    );
  };
}
