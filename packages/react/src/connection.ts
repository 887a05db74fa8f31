import type { ConnectionState, Identity, Tollgate, TollgateError } from '@tollgate/client';
import { useTollgate } from './provider.ts';
import { Store, useKept, useStore } from './store.ts';

export interface ConnectionSnapshot {
  readonly state: ConnectionState;
  /** The user, as of the last welcome or change of the plan. */
  readonly identity: Identity | undefined;
  /** Why the client waits or has stopped; undefined while it is connected. */
  readonly error: TollgateError | undefined;
}

/** The state of the connection. It connects nothing by itself. */
export function useConnection(): ConnectionSnapshot {
  const client = useTollgate();
  return useStore(useKept(() => connectionStore(client), client));
}

function connectionStore(client: Tollgate): Store<ConnectionSnapshot> {
  const store = new Store<ConnectionSnapshot>({ state: 'idle', identity: undefined, error: undefined }, () => {
    // The client may have connected between the render and its commit.
    const { state, identity } = client;
    if (state !== store.get().state || identity !== store.get().identity) store.update({ state, identity });
    const removals = [
      client.on('state', (state) => store.update(state === 'connected' ? { state, error: undefined } : { state })),
      client.on('identity', (identity) => store.update({ identity })),
      client.on('error', (error) => {
        if (client.state !== 'connected') store.update({ error });
      }),
    ];
    return () => {
      for (const remove of removals) remove();
    };
  });
  return store;
}
