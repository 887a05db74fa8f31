import { Tollgate, type TollgateOptions } from '@tollgate/client';
import { createContext, createElement, type ReactNode, useContext, useEffect, useRef, useState } from 'react';

const TollgateContext = createContext<Tollgate | undefined>(undefined);

export type TollgateProviderProps = { readonly children?: ReactNode } & (
  | {
      /** A client that the application creates and closes. */
      readonly client: Tollgate;
      readonly options?: never;
    }
  | {
      /**
       * Options of a client that the provider creates, and closes when it unmounts. It uses the latest `getToken`; the
       * other options are read once, so give the provider a `key` (such as the user's id) to change them.
       */
      readonly options: TollgateOptions;
      readonly client?: never;
    }
);

/** Provides one client, and so one connection, to the hooks below it. The client connects when a hook first needs it. */
export function TollgateProvider({ client, options, children }: TollgateProviderProps): ReactNode {
  if (client) return createElement(TollgateContext.Provider, { value: client }, children);
  return createElement(OwnClient, { options, children });
}

/** Creating a client has no effect, so that renders on a server, or that React discards, leave nothing behind. */
function OwnClient({ options, children }: { readonly options: TollgateOptions; readonly children?: ReactNode }) {
  const latest = useRef(options);
  const [client] = useState(
    () => new Tollgate({ ...options, getToken: (context) => latest.current.getToken(context) }),
  );
  const closing = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    latest.current = options;
  }, [options]);
  useEffect(() => {
    clearTimeout(closing.current);
    // Strict mode unmounts and mounts again at once: the connection and its runs outlive that.
    return () => {
      closing.current = setTimeout(() => client.close(), 0);
    };
  }, [client]);
  return createElement(TollgateContext.Provider, { value: client }, children);
}

/** @throws Error outside of a TollgateProvider */
export function useTollgate(): Tollgate {
  const client = useContext(TollgateContext);
  if (!client) throw new Error('This hook needs a <TollgateProvider> above it.');
  return client;
}
